"""What `status` reads with: the text of the statements is theirs, and a view is one moment and changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.db import snapshot as snapshot_module
from rvc_batch.db import status_sql
from rvc_batch.db.engine import open_reader
from rvc_batch.db.snapshot import open_snapshot
from rvc_batch.errors import DatabaseUnusable, RetryClass
from rvc_batch.jobs.models import Arrival, ArrivalVerdict
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import EPOCH, FakeClock, claimed, error, finished, open_queue, queued
from tools import compile_statements

VALUES: dict[str, Any] = {"now": EPOCH, "since": EPOCH - 1000, "limit": 3, "voice": "anna", "key": "version"}


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(tmp_path, FakeClock())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite3"


def fill(queue: Queue) -> None:
    """Put at least one row under every question: all states, a fault, an arrival."""
    for n in range(3):
        queued(queue, f"done {n}.wav")
        finished(queue, claimed(queue), seconds_in=60.0 + n, wall_seconds=7.0)
    queued(queue, "bad.wav")
    queue.fail(claimed(queue), error(), retry=RetryClass.NEVER)
    queued(queue, "running.wav", seconds_in=61)
    queue.cancel(claimed(queue).id)
    queued(queue, "waiting.wav")
    queued(queue, "unknown.wav", seconds_in=None)
    arrival = Arrival(
        path=b"\xff.wav", first_seen=1.0, last_change=2.5, size=9, verdict=ArrivalVerdict.SETTLING, reason="new"
    )
    queue.replace_arrivals([arrival])


def leave_a_hook_behind(path: Path) -> None:
    """Add what a hook was told once and did not take."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO deliveries (hook, event, at, body_json, tries, next_try_at, last_error) "
            "VALUES ('phone', 'done', 1.0, '{}', 1, 2.0, 'refused')"
        )


# --- the statements ---


def test_the_text_is_that_of_the_statements() -> None:
    assert compile_statements.TARGET.read_text(encoding="utf-8") == compile_statements.module(), (
        "rvc_batch/db/status_sql.py differs from rvc_batch/db/statements.py; run `python tools/compile_statements.py`"
    )


@pytest.mark.parametrize("name", compile_statements.asked())
def test_the_text_finds_what_the_statement_finds(queue: Queue, path: Path, name: str) -> None:
    """The driver alone skips SQLAlchemy's types, so equal text does not yet mean equal rows."""
    fill(queue)
    leave_a_hook_behind(path)
    statement = compile_statements.asked()[name]
    values = {key: VALUES[key] for key in statement.compile().params if key in VALUES}
    expected = open_reader(path).read(lambda c: c.execute(statement, values).all())
    assert expected, "nothing is compared"
    with open_snapshot(path) as view:
        found = view.rows(getattr(status_sql, name.upper()), **values)
        assert [tuple(row) for row in found] == [tuple(row) for row in expected]
        assert found[0].keys() == list(expected[0]._fields)


# --- the view ---


def test_a_view_stays_at_its_moment_and_blocks_no_writer(queue: Queue, path: Path) -> None:
    with open_snapshot(path) as view:
        before = view.rows(status_sql.COUNTS)
        queue.pause("disk swap")
        queued(queue)
        assert view.rows(status_sql.COUNTS) == before == []
        assert view.value(status_sql.META_VALUE, key="pause") is None
    with open_snapshot(path) as view:
        assert [tuple(row) for row in view.rows(status_sql.COUNTS)] == [("queued", 1)]


@pytest.mark.parametrize("is_at_rest", [True, False])
def test_a_view_cannot_write(queue: Queue, path: Path, is_at_rest: bool) -> None:
    if is_at_rest:
        queue.close()
    with pytest.raises(DatabaseUnusable, match="readonly"), open_snapshot(path) as view:
        view.rows("DELETE FROM meta")


def test_reading_a_file_at_rest_leaves_the_folder_as_it_is(queue: Queue, path: Path) -> None:
    queued(queue)
    queue.close()
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with open_snapshot(path) as view:
        assert len(view.rows(status_sql.COUNTS)) == 1
        assert {p.name for p in path.parent.iterdir()} == set(before)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


# --- trouble ---


def test_a_missing_file_is_said_to_be_missing_and_not_created(path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="there is no job database"), open_snapshot(path):
        pass
    assert not path.exists()


def test_a_lock_is_waited_for_only_a_moment(queue: Queue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "READER_TIMEOUT_S", 0.01)
    queue.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        path.with_name(path.name + "-wal").touch()  # so that it is not taken for a file at rest
        with pytest.raises(DatabaseUnusable, match="locked by another process"), open_snapshot(path) as view:
            view.rows(status_sql.COUNTS)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"this is certainly not a database" * 100)
    with pytest.raises(DatabaseUnusable, match="is not a job database"), open_snapshot(path) as view:
        view.rows(status_sql.COUNTS)


def test_damage_is_said_to_be_damage(queue: Queue, path: Path) -> None:
    fill(queue)
    queue.close()
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\x7f" * 4096)
    with pytest.raises(DatabaseUnusable, match="is damaged"), open_snapshot(path) as view:
        view.rows(status_sql.RUNNING_LINES)


def test_tables_that_are_not_there_are_named(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE songs (id INTEGER)")
    with pytest.raises(DatabaseUnusable, match="no such table: jobs"), open_snapshot(path) as view:
        view.rows(status_sql.COUNTS)

"""Backups of the job database: whole while somebody writes, restorable, never over another file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rvc_batch.errors import DatabaseUnusable, FolderGone, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs import backup as backup_module
from rvc_batch.jobs.backup import KEPT, back_up_if_due, backups, make_backup, remove_left_copies
from rvc_batch.jobs.queue import Queue
from tests.cli_harness import run
from tests.job_fakes import files_below
from tests.queue_fakes import EPOCH, FakeClock, claimed, finished, queued


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


@pytest.fixture
def queue(home: Home) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=FakeClock())
    yield opened
    opened.close()


def test_backup_of_an_open_database_can_be_put_back(home: Home, queue: Queue, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        queued(queue, name)
    finished(queue, claimed(queue))
    target = tmp_path / "copy.sqlite3"
    assert run(home, "backup", str(target)).stdout.startswith(str(target))
    queued(queue, "later")
    restored = Home(tmp_path / "restored")
    restored.create()
    shutil.copyfile(target, restored.database)
    again = Queue.open(restored.database, clock=FakeClock())
    assert again.list() == [job for job in queue.list() if job.id != 4]
    assert again.events(1) == queue.events(1)
    queued(again, "works")
    again.close()


def test_without_a_name_it_goes_to_its_usual_folder(home: Home, queue: Queue) -> None:
    record = json.loads(run(home, "backup", "--json").stdout)
    assert [Path(record["backup"])] == backups(home)
    assert record["size"] == backups(home)[0].stat().st_size


def test_nothing_is_replaced_and_nothing_is_left_behind(home: Home, queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    with pytest.raises(SettingsInvalid, match="exists already"):
        run(home, "backup", str(tmp_path / "mine"))
    with pytest.raises(SettingsInvalid, match="there is no folder"):
        run(home, "backup", str(tmp_path / "no" / "copy"))
    assert files_below(tmp_path.parent / tmp_path.name)[-1] == "mine"
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_home_without_a_database_has_nothing_to_copy(home: Home) -> None:
    with pytest.raises(DatabaseUnusable, match="there is no job database"):
        run(home, "backup")
    assert not home.database.exists()


def empty(data: bytes) -> bytes:
    return b""


def scribbled(data: bytes) -> bytes:
    jobs_page = data.index(b"anna/take.wav") // 4096
    return data[: jobs_page * 4096] + b"\xa5" * 4096 + data[(jobs_page + 1) * 4096 :]


@pytest.mark.parametrize("damage", [empty, scribbled])
def test_a_damaged_copy_never_gets_its_name(
    home: Home, queue: Queue, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    queued(queue)
    genuine = backup_module.back_up

    def damaged(path: Path, target: Path) -> None:
        genuine(path, target)
        target.write_bytes(damage(target.read_bytes()))

    monkeypatch.setattr(backup_module, "back_up", damaged)
    with pytest.raises(DatabaseUnusable):
        make_backup(home, home.state / "copy")
    assert "copy" not in " ".join(files_below(home.state))


def test_a_copy_that_cannot_be_made_durable_never_gets_its_name(
    home: Home, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("rvc_batch.jobs.durable.sync_path", fails)
    with pytest.raises(FolderGone, match="Input/output error"):
        make_backup(home, home.state / "copy")
    assert "copy" not in " ".join(files_below(home.state))


def test_the_copy_of_a_killed_process_goes_and_that_of_a_living_one_stays(home: Home, queue: Queue) -> None:
    made = back_up_if_due(home, EPOCH, 3600)
    assert made is not None
    killed = subprocess.Popen(["true"])
    killed.wait()
    of_the_dead = [made.with_name(f".{made.name}.{killed.pid}.unchecked{end}") for end in ("", ".part")]
    of_the_living = made.with_name(f".{made.name}.{os.getpid()}.unchecked.part")
    for copy in (*of_the_dead, of_the_living):
        copy.touch()
    remove_left_copies(home)
    assert sorted(home.backups.iterdir()) == sorted([of_the_living, made])


def test_the_daemon_makes_one_an_hour_and_keeps_the_newest(home: Home, queue: Queue) -> None:
    assert back_up_if_due(home, EPOCH, 3600) is not None
    assert back_up_if_due(home, EPOCH + 3599, 3600) is None
    last = max(back_up_if_due(home, EPOCH + 3600 * hour, 3600) or home.root for hour in range(1, KEPT + 3))
    assert len(backups(home)) == KEPT
    assert backups(home)[-1] == last
    assert back_up_if_due(home, EPOCH - 9999999, 3600) is not None, "a clock that was set back stops no backup"

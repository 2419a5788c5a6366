"""The outbox of the hooks: every event once per hook, kept until it was told, given up after the last try."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rvc_batch.config import HookSettings
from rvc_batch.errors import RetryClass
from rvc_batch.jobs.models import PauseState
from rvc_batch.jobs.notices import KEPT_SECONDS, RETRY_SECONDS, Batch, Notices
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import FakeClock, claimed, error, finished, queued

ALL = HookSettings(command=("/bin/true",), name="all")
DONE = HookSettings(url="https://example.org/secret", on=("done",))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Iterator[Queue]:
    opened = Queue.open(tmp_path / "jobs.sqlite3", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def notices(queue: Queue) -> Notices:
    made = queue.notices()
    made.collect([ALL])
    return made


def told(notices: Notices) -> list[tuple[str, str, int]]:
    return [(batch.hook, batch.event, len(batch.rows)) for batch in notices.due()]


def empty(notices: Notices) -> None:
    for batch in notices.due():
        notices.told(batch)


def test_what_was_before_the_first_hook_is_not_told(queue: Queue) -> None:
    queued(queue)
    finished(queue, claimed(queue))
    notices = queue.notices()
    notices.collect([ALL])
    assert told(notices) == []


def test_each_hook_is_told_what_it_wants_once(queue: Queue, notices: Notices) -> None:
    queued(queue, "a.wav")
    finished(queue, claimed(queue))
    queued(queue, "b.wav")
    queue.fail(claimed(queue), error("E_INPUT_EMPTY", "the file is empty"), retry=RetryClass.NEVER)
    for _ in range(3):
        notices.collect([ALL, DONE])
    assert told(notices) == [
        ("all", "done", 1),
        ("https://example.org", "done", 1),
        ("all", "failed", 1),
        ("all", "idle", 1),
    ]
    done, _, failed, _ = notices.due()
    assert done.bodies[0] == {
        "at": queue.get(1).finished_at,
        "job": 1,
        "source": "anna/a.wav",
        "voice": "anna",
        "output": "anna/a.wav",
        "seconds": 60.0,
        "work_seconds": 6.0,
    }
    assert (failed.bodies[0]["code"], failed.bodies[0]["message"]) == ("E_INPUT_EMPTY", "the file is empty")
    empty(notices)
    notices.collect([ALL, DONE])
    assert told(notices) == []


def test_retry_that_is_no_end_is_not_told(queue: Queue, notices: Notices) -> None:
    queued(queue)
    queue.fail(claimed(queue), error("E_OUTPUT_INVALID"), retry=RetryClass.LATER)
    notices.collect([ALL])
    assert told(notices) == []


def test_idle_is_told_when_the_last_job_ended_and_not_again(queue: Queue, notices: Notices) -> None:
    queued(queue, "a.wav")
    queued(queue, "b.wav")
    finished(queue, claimed(queue))
    notices.collect([ALL])
    assert told(notices) == [("all", "done", 1)]
    queue.cancel(2)
    notices.collect([ALL])
    assert told(notices) == [("all", "done", 1), ("all", "idle", 1)]
    notices.collect([ALL])
    assert told(notices) == [("all", "done", 1), ("all", "idle", 1)]


def test_pause_is_told_once_however_long_it_lasts(queue: Queue, notices: Notices, clock: FakeClock) -> None:
    queued(queue)
    for _ in range(3):  # the machine stays sick: the pause is renewed and is the same
        queue.fail(claimed(queue), error("E_DISK_FULL", "no space left"), retry=RetryClass.PAUSE)
        notices.collect([ALL])
        assert isinstance(queue.paused(), PauseState)
        clock.step(40)
    queue.pause("disk swap")
    notices.collect([ALL])
    bodies = [(body["code"], body["reason"]) for batch in notices.due() for body in batch.bodies]
    assert bodies == [("E_DISK_FULL", "no space left"), ("", "disk swap")]


def test_failing_hook_is_called_ever_later_and_then_given_up(queue: Queue, notices: Notices, clock: FakeClock) -> None:
    queued(queue, "a.wav")
    queued(queue, "b.wav")
    finished(queue, claimed(queue))
    notices.collect([ALL])
    for number, delay in enumerate(RETRY_SECONDS):
        (batch,) = notices.due()
        assert notices.refused(batch, f"error {number}") == 0
        clock.step(delay - 1)
        assert notices.due() == []
        clock.step(2)
    (batch,) = notices.due()
    assert notices.refused(batch, "the last error") == 1
    clock.step(86_400)
    assert notices.due() == []
    assert dropped(queue) == [("done", "the last error")]
    clock.step(KEPT_SECONDS)
    queued(queue, "c.wav")
    notices.collect([ALL])
    assert dropped(queue) == []


def dropped(queue: Queue) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(queue._db.path)) as connection:
        return connection.execute("SELECT event, last_error FROM deliveries WHERE dropped_at IS NOT NULL").fetchall()


def test_what_happens_while_a_hook_rests_waits_with_it_and_is_told_together(
    queue: Queue, notices: Notices, clock: FakeClock
) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        queued(queue, name)
    finished(queue, claimed(queue))
    notices.collect([ALL, DONE])
    for batch in notices.due():
        notices.told(batch) if batch.hook != "all" else notices.refused(batch, "down")
    finished(queue, claimed(queue))
    notices.collect([ALL, DONE])
    assert told(notices) == [("https://example.org", "done", 1)], "one hook that is down keeps no other waiting"
    clock.step(RETRY_SECONDS[0] + 1)
    assert ("all", "done", 2) in told(notices)


def test_hook_that_is_taken_out_of_the_settings_leaves_nothing(queue: Queue, notices: Notices) -> None:
    queued(queue)
    finished(queue, claimed(queue))
    notices.collect([ALL])
    notices.collect([])
    assert told(notices) == []
    queued(queue, "b.wav")
    finished(queue, claimed(queue))
    notices.collect([ALL])
    assert told(notices) == [], "a hook that comes back begins with now"


def test_rows_and_mark_change_together(queue: Queue, notices: Notices, monkeypatch: pytest.MonkeyPatch) -> None:
    from rvc_batch.jobs import notices as module

    queued(queue)
    finished(queue, claimed(queue))

    def fail(*_: object) -> None:
        raise RuntimeError("killed between the rows and the mark")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_store", fail)
        with pytest.raises(RuntimeError):
            notices.collect([ALL])
    assert told(notices) == []
    notices.collect([ALL])
    assert told(notices) == [("all", "done", 1), ("all", "idle", 1)]


def test_looking_for_news_writes_nothing_when_there_are_none(queue: Queue, notices: Notices) -> None:
    queued(queue)
    claimed(queue)
    notices.collect([ALL])
    writes: list[object] = []
    write = queue._db.write
    queue._db.write = lambda body: writes.append(body) or write(body)  # type: ignore[method-assign, assignment]
    for _ in range(5):
        notices.collect([ALL])
    assert writes == []


def test_bodies_are_json_whatever_the_name(queue: Queue, notices: Notices) -> None:
    queued(queue, "a\udcff\x1b.wav".encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    finished(queue, claimed(queue))
    notices.collect([ALL])
    batch = notices.due()[0]
    assert isinstance(batch, Batch)
    assert json.loads(json.dumps(batch.bodies))

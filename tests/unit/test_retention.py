"""What is removed by itself, and what never is: nothing that a job still needs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rvc_batch.config import RetentionSettings
from rvc_batch.errors import RetryClass
from rvc_batch.home import Home
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.retention import DAY_S, Pruned, prune
from rvc_batch.jobs.sources import Sources
from tests.job_fakes import files_below
from tests.queue_fakes import FakeClock, claimed, error, finished, new_job, open_queue, queued

OFF = RetentionSettings(history_days=0, logs_days=0)
LATER = 40 * DAY_S


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.create()
    return home


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(home: Home, clock: FakeClock) -> Queue:
    return open_queue(home.state, clock)


def in_days(days: float) -> float:
    """Files were put there just now; their times cannot be set, so the clock is."""
    return time.time() + days * DAY_S


def put(folder: Path, name: str, size: int = 10) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    os.utime(path, (1e9, 1e9))  # a producer's time, which says nothing of how long it has been here
    return path


def failed_job(home: Home, queue: Queue, name: str = "take.wav") -> Job:
    """Return a failed job whose source lies in failed/."""
    data = f"source of {name}"
    queued(queue, name, content=data)  # the row has the hash of this content
    job = queue.fail(claimed(queue), error(), retry=RetryClass.NEVER)
    sources = Sources(home, keep_sources=True)
    sources.open_folders([job])
    sources.path(job).write_text(data)
    sources.settle(job)
    return queue.get(job.id)


def test_nothing_is_removed_unless_asked_for(home: Home, queue: Queue) -> None:
    put(home.processed, "a.wav")
    failed_job(home, queue)
    assert prune(home, queue, OFF, in_days(10_000)) == Pruned()
    assert len(files_below(home.processed)) == 1
    assert len(files_below(home.failed)) == 2


def test_sources_go_by_the_time_they_have_been_there_with_all_that_belongs_to_them(home: Home, queue: Queue) -> None:
    for name in ("alto/a.wav", "alto/a.wav.toml", "alto/._a.wav"):
        put(home.processed, name)
    settings = RetentionSettings(processed_days=30)
    assert prune(home, queue, settings, in_days(29)) == Pruned()
    assert prune(home, queue, settings, in_days(31)) == Pruned(files=1)
    assert files_below(home.processed) == []
    assert list(home.processed.iterdir()) == [], "a folder that became empty goes, too"
    assert home.processed.is_dir()


def test_oldest_sources_go_until_the_rest_is_small_enough(home: Home, queue: Queue) -> None:
    for name in "abc":
        put(home.processed, f"{name}.wav", size=1000)
        time.sleep(0.02)  # ctime cannot be set
    settings = RetentionSettings(processed_gb=2100 / 1e9)
    assert prune(home, queue, settings, in_days(0)) == Pruned(files=1)
    assert files_below(home.processed) == ["b.wav", "c.wav"]
    assert prune(home, queue, settings, in_days(0)) == Pruned()


def test_links_in_processed_are_neither_followed_nor_removed(home: Home, queue: Queue, tmp_path: Path) -> None:
    outside = put(tmp_path / "elsewhere", "mine.wav")
    (home.processed / "folder").symlink_to(outside.parent)
    (home.processed / "link.wav").symlink_to(outside)
    prune(home, queue, RetentionSettings(processed_days=1), in_days(400))
    assert outside.is_file()
    assert sorted(p.name for p in home.processed.iterdir()) == ["folder", "link.wav"]


def test_failed_source_goes_with_its_reason_and_then_its_row(home: Home, queue: Queue, clock: FakeClock) -> None:
    job = failed_job(home, queue)
    clock.step(LATER)
    settings = RetentionSettings(failed_days=10, history_days=30)
    assert prune(home, queue, RetentionSettings(history_days=30), clock()) == Pruned(), "it can still be retried"
    assert prune(home, queue, settings, max(in_days(11), clock())) == Pruned(files=1, rows=1)
    assert files_below(home.failed) == []
    assert [j.id for j in queue.list()] == []
    assert queue.events(job.id) == []


@pytest.mark.parametrize("limit", [{"failed_days": 1}, {"failed_gb": 1e-9}])
def test_source_of_a_retried_job_stays_in_failed_until_it_is_fetched(
    home: Home, queue: Queue, limit: dict[str, float]
) -> None:
    job = failed_job(home, queue)
    queue.retry(job.id)
    assert prune(home, queue, RetentionSettings(**limit), in_days(400)) == Pruned()
    assert Sources(home, keep_sources=True).fetch(queue.get(job.id)).read_bytes() == b"source of take.wav"


def test_rows_of_active_jobs_are_never_forgotten(home: Home, queue: Queue, clock: FakeClock) -> None:
    running = queued(queue, "running.wav")
    claimed(queue)
    waiting = queued(queue, "waiting.wav")
    arriving = queue.submit(new_job("arriving.wav"))
    clock.step(LATER * 100)
    assert prune(home, queue, RetentionSettings(history_days=1), clock()).rows == 0
    assert queue.forget([running.id, waiting.id, arriving.id]) == 0
    assert {j.id for j in queue.list()} == {running.id, waiting.id, arriving.id}


def test_old_rows_go_with_all_that_hangs_on_them_and_numbers_are_not_used_again(
    home: Home, queue: Queue, clock: FakeClock
) -> None:
    queued(queue, "old.wav")
    old = finished(queue, claimed(queue))
    queue.register_worker("w", pid=1)
    clock.step(LATER)
    queued(queue, "new.wav")
    new = finished(queue, claimed(queue))
    assert prune(home, queue, RetentionSettings(history_days=30), clock()) == Pruned(rows=1)
    assert [j.id for j in queue.list()] == [new.id]
    left = queue._db.read(
        lambda c: [
            c.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one()
            for table in ("attempts", "stage_timings", "workers")
        ]
    )
    assert left == [1, 3, 0]
    assert queue.events(old.id) == []
    queued(queue, "next.wav")
    assert queue.list()[0].id > new.id


def test_first_of_a_duplicate_goes_after_it(home: Home, queue: Queue, clock: FakeClock) -> None:
    first = queued(queue)
    assert queue.submit(new_job()).state is JobState.DUPLICATE
    finished(queue, claimed(queue))
    assert queue.forget([first.id]) == 0, "the duplicate names it"
    clock.step(LATER)
    settings = RetentionSettings(history_days=30)
    assert prune(home, queue, settings, clock()).rows == 1
    assert prune(home, queue, settings, clock()).rows == 1
    assert queue.list() == []


def test_many_rows_go_in_parts_and_those_that_stay_block_nobody(
    home: Home, queue: Queue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvc_batch.jobs.retention.ROWS_AT_ONCE", 2)
    kept = failed_job(home, queue, "kept.wav")
    also = failed_job(home, queue, "also.wav")
    for number in range(5):
        queued(queue, f"{number}.wav")
        finished(queue, claimed(queue))
    clock.step(LATER)
    assert prune(home, queue, RetentionSettings(history_days=30), clock()).rows == 5
    assert {j.id for j in queue.list()} == {kept.id, also.id}


def test_rotated_logs_go_by_age(home: Home, queue: Queue) -> None:
    for name in ("rvc-batch.log", "rvc-batch.log.1", "rvc-batch.log.2", "worker.stderr.log"):
        put(home.logs, name)
    os.utime(home.logs / "rvc-batch.log.1")
    assert prune(home, queue, RetentionSettings(logs_days=30, history_days=0), in_days(0)) == Pruned(logs=1)
    assert files_below(home.logs) == ["rvc-batch.log", "rvc-batch.log.1", "worker.stderr.log"]

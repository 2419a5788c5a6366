"""Claims, heartbeats, results, and what the queue tells of its jobs and workers."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rvc_batch.errors import JobStateConflict, RetryClass
from rvc_batch.jobs.models import Arrival, ArrivalVerdict, JobState, Outcome
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import (
    EPOCH,
    LEASE_S,
    FakeClock,
    claimed,
    error,
    finished,
    open_queue,
    outcomes,
    queued,
    report,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Queue:
    return open_queue(tmp_path, clock)


# --- claim ---


def test_a_claim_counts_an_attempt_and_sets_lease_and_worker(queue: Queue, clock: FakeClock) -> None:
    job = queued(queue)
    clock.step(5)
    taken = claimed(queue)
    assert (taken.id, taken.state, taken.worker_id) == (job.id, JobState.RUNNING, "w1")
    assert (taken.claim_no, taken.attempt) == (1, 1)
    assert (taken.started_at, taken.lease_until) == (EPOCH + 5, EPOCH + 5 + LEASE_S)
    (attempt,) = queue.attempts(job.id)
    assert (attempt.claim_no, attempt.worker_id, attempt.pid, attempt.outcome) == (1, "w1", 11, None)
    assert queue.claim("w2", pid=2, lease_seconds=LEASE_S) is None


def test_claims_go_by_priority_then_age(queue: Queue) -> None:
    for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        queued(queue, name, priority=priority)
    assert [claimed(queue).source_name for _ in range(4)] == ["anna/b", "anna/d", "anna/a", "anna/c"]


def test_a_warm_voice_goes_first_within_one_priority(queue: Queue) -> None:
    queued(queue, "1")
    queued(queue, "2", voice="tom")
    queued(queue, "3", priority=1)
    order = [claimed(queue, warm_voice="tom").source_name for _ in range(3)]
    assert order == ["anna/3", "tom/2", "anna/1"]


def test_a_cold_voice_does_not_starve(queue: Queue, clock: FakeClock) -> None:
    queued(queue, "old")
    clock.step(601)
    queued(queue, "new", voice="tom")
    assert claimed(queue, warm_voice="tom").source_name == "anna/old"


def test_the_claim_reads_only_the_index_of_queued_jobs(queue: Queue) -> None:
    from sqlalchemy.dialects import sqlite

    from rvc_batch.db import statements

    compiled = statements.CLAIM.compile(dialect=sqlite.dialect(paramstyle="named"))
    plan = queue._db.read(lambda c: c.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", compiled.params).all())
    assert any("ix_jobs_claim" in row.detail for row in plan), plan
    assert not any("TEMP B-TREE" in row.detail for row in plan), plan


def test_the_claim_locks_the_row_where_the_database_can() -> None:
    from sqlalchemy.dialects import postgresql

    from rvc_batch.db import statements

    for claim in (statements.CLAIM, statements.CLAIM_WARM):
        assert "FOR UPDATE SKIP LOCKED" in str(claim.compile(dialect=postgresql.dialect()))


# --- heartbeat, intent, finish ---


def test_a_heartbeat_extends_the_lease_and_notes_progress(queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    job = claimed(queue)
    clock.step(20)
    beat = queue.heartbeat(job, lease_seconds=LEASE_S, stage="pitch", progress_done=12.5, progress_total=61.0)
    assert (beat.alive, beat.cancel_requested) == (True, False)
    queue.heartbeat(job, lease_seconds=LEASE_S)
    now = queue.get(job.id)
    assert (now.lease_until, now.stage) == (EPOCH + 20 + LEASE_S, "pitch")
    assert (now.progress_done, now.progress_total) == (12.5, 61.0)


def test_finish_records_result_timings_and_warnings(queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    job = claimed(queue)
    clock.step(6)
    done = finished(queue, job)
    assert (done.state, done.finished_at, done.wall_seconds) == (JobState.DONE, EPOCH + 6, 6.0)
    assert (done.output_sha256, done.output_size, done.voice_sha256) == ("a" * 64, 123, "b" * 64)
    assert (done.warnings, done.worker_id, done.lease_until) == (("3 samples clipped",), None, None)
    (attempt,) = queue.attempts(job.id)
    assert (attempt.outcome, attempt.ended_at, attempt.peak_rss) == (Outcome.DONE, EPOCH + 6, 1 << 30)
    assert list(attempt.stage_seconds.items()) == [("decode", 0.5), ("features", 2.0), ("synth", 3.0)]
    assert json.loads(attempt.report_json or "")["segments"] == 2


def test_a_finished_job_shows_no_error_of_earlier_attempts(queue: Queue, clock: FakeClock) -> None:
    job = queued(queue)
    queue.fail(claimed(queue), error(), retry=RetryClass.LATER)
    clock.step(60)
    assert finished(queue, claimed(queue)).error is None
    assert queue.attempts(job.id)[0].error == error()


def test_finish_without_a_recorded_output_is_refused(queue: Queue) -> None:
    queued(queue)
    job = claimed(queue)
    with pytest.raises(JobStateConflict, match="record_intent comes before finish"):
        queue.finish(job, report())
    assert queue.attempts(job.id)[0].outcome is None


def test_a_result_found_published_after_a_crash_is_done(queue: Queue) -> None:
    queued(queue)
    job = claimed(queue)
    queue.record_intent(job, output_sha256="c" * 64, output_size=9)
    (left,) = queue.unfinished()
    assert (left.output_sha256, left.output_size) == ("c" * 64, 9)
    assert queue.finish_published(left).state is JobState.DONE
    assert outcomes(queue, job.id) == [Outcome.DONE]


def test_a_new_claim_knows_what_the_last_meant_to_publish(queue: Queue) -> None:
    queued(queue)
    job = claimed(queue)
    queue.record_intent(job, output_sha256="c" * 64, output_size=9)
    queue.interrupt(job)
    assert claimed(queue).output_sha256 == "c" * 64


# --- listings, workers, arrivals ---


def test_jobs_are_listed_newest_first_and_filtered(queue: Queue) -> None:
    queued(queue, "a")
    queued(queue, "b", voice="tom")
    queue.fail(claimed(queue), error("E_INPUT_EMPTY"), retry=RetryClass.NEVER)
    assert [j.id for j in queue.list()] == [2, 1]
    assert [j.id for j in queue.list(limit=1, offset=1)] == [1]
    assert [j.id for j in queue.list(voice="tom")] == [2]
    assert [j.id for j in queue.list(state=JobState.FAILED)] == [1]
    assert [j.id for j in queue.list(state=(JobState.FAILED, JobState.QUEUED))] == [2, 1]
    assert [j.id for j in queue.list(error_code="E_INPUT_EMPTY")] == [1]
    assert queue.counts() == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 1, JobState.FAILED: 1}


def test_workers_report_what_they_do(queue: Queue, clock: FakeClock) -> None:
    queue.register_worker("w1", pid=5, backend="mlx")
    clock.step(4)
    queue.worker_heartbeat("w1", state="busy", job_id=3, rss=1 << 33, warm_voices=("anna", "tom"), device="M4 Pro")
    (worker,) = queue.workers()
    assert (worker.pid, worker.backend, worker.device, worker.state) == (5, "mlx", "M4 Pro", "busy")
    assert (worker.started_at, worker.heartbeat_at, worker.rss) == (EPOCH, EPOCH + 4, 1 << 33)
    assert worker.warm_voices == ("anna", "tom")


def test_arrivals_are_replaced_whole_and_only_when_they_changed(queue: Queue) -> None:
    def arrival(path: bytes) -> Arrival:
        return Arrival(
            path=path, first_seen=1.0, last_change=2.0, size=3, verdict=ArrivalVerdict.SETTLING, reason="still growing"
        )

    queue.replace_arrivals([arrival(b"b\xff"), arrival(b"a")])
    assert queue.arrivals() == [arrival(b"a"), arrival(b"b\xff")]
    with closing(sqlite3.connect(queue._db.path)) as watching:
        before = watching.execute("PRAGMA data_version").fetchone()
        queue.replace_arrivals([arrival(b"a"), arrival(b"b\xff")])
        assert watching.execute("PRAGMA data_version").fetchone() == before
        queue.replace_arrivals([])
        assert watching.execute("PRAGMA data_version").fetchone() != before
    assert queue.arrivals() == []

"""What fails, stops or crashes: the fence, retries, refunds, pauses, orphans."""

import math
from pathlib import Path

import pytest

from rvc_batch.errors import LeaseLost, RetryClass
from rvc_batch.jobs.models import JobState, Outcome
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import (
    EPOCH,
    LEASE_S,
    FakeClock,
    claimed,
    error,
    finished,
    new_job,
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


# --- the fence ---


def late_writes(queue: Queue, stale: object) -> None:
    """Try every write of a worker that lost its lease."""
    for verb in (
        lambda job: queue.record_intent(job, output_sha256="f" * 64, output_size=1),
        lambda job: queue.finish(job, report()),
        lambda job: queue.finish_published(job),
        lambda job: queue.fail(job, error(), retry=RetryClass.PAUSE),
        lambda job: queue.interrupt(job),
        lambda job: queue.mark_cancelled(job),
        lambda job: queue.reserve_another_name(job),
    ):
        with pytest.raises(LeaseLost):
            verb(stale)  # type: ignore[no-untyped-call]
    beat = queue.heartbeat(stale, lease_seconds=LEASE_S, progress_done=99.0)  # type: ignore[arg-type]
    assert beat.alive is False


@pytest.mark.parametrize("again", ["w1", "w2"])
def test_a_worker_that_lost_its_lease_writes_nothing(queue: Queue, clock: FakeClock, again: str) -> None:
    queued(queue)
    stale = claimed(queue, "w1")
    clock.step(LEASE_S + 1)
    queue.rescue_expired()
    fresh = claimed(queue, again)  # even by the same worker: the claim number differs
    before = (queue.get(fresh.id), queue.attempts(fresh.id), queue.events(fresh.id), queue.paused())
    late_writes(queue, stale)
    assert (queue.get(fresh.id), queue.attempts(fresh.id), queue.events(fresh.id), queue.paused()) == before
    assert finished(queue, fresh).state is JobState.DONE
    assert outcomes(queue, fresh.id) == [Outcome.FENCED, Outcome.DONE]


def test_a_refunded_claim_is_fenced_though_its_attempt_number_returns(queue: Queue) -> None:
    queued(queue)
    stale = claimed(queue, "w1")
    queue.interrupt(stale)
    fresh = claimed(queue, "w1")
    assert (fresh.attempt, fresh.claim_no) == (stale.attempt, stale.claim_no + 1)
    late_writes(queue, stale)


# --- failure ---


def test_an_input_error_fails_the_job_at_once(queue: Queue) -> None:
    job = queued(queue)
    failed = queue.fail(claimed(queue), error("E_INPUT_TRUNCATED"), retry=RetryClass.NEVER, stage_seconds={"hash": 1.0})
    assert (failed.state, failed.error) == (JobState.FAILED, error("E_INPUT_TRUNCATED"))
    (attempt,) = queue.attempts(job.id)
    assert (attempt.outcome, attempt.error, attempt.stage_seconds) == (Outcome.FAILED, failed.error, {"hash": 1.0})


def test_an_unexpected_error_is_tried_again_after_growing_delays_then_fails(queue: Queue, clock: FakeClock) -> None:
    job = queued(queue, max_attempts=4)
    for nominal in (10.0, 60.0, 300.0):
        after = queue.fail(claimed(queue), error(), retry=RetryClass.LATER)
        assert after.state is JobState.QUEUED
        delay = after.run_after - clock.now
        assert nominal <= delay <= nominal * 1.2
        clock.step(delay - 0.1)
        assert queue.claim("w1", pid=1, lease_seconds=LEASE_S) is None
        clock.step(0.2)
    assert queue.fail(claimed(queue), error(), retry=RetryClass.LATER).state is JobState.FAILED
    assert outcomes(queue, job.id) == [Outcome.RETRY] * 3 + [Outcome.FAILED]


def test_a_broken_voice_is_refunded_once(queue: Queue, clock: FakeClock) -> None:
    queued(queue, max_attempts=1)
    first = queue.fail(claimed(queue), error("E_MODEL_MISSING"), retry=RetryClass.REFUND)
    assert (first.state, first.attempt, first.run_after) == (JobState.QUEUED, 0, EPOCH + 60)
    clock.step(60)
    assert queue.fail(claimed(queue), error("E_MODEL_MISSING"), retry=RetryClass.REFUND).state is JobState.FAILED


def test_an_environment_fault_refunds_and_pauses_until_one_job_may_try(queue: Queue, clock: FakeClock) -> None:
    job = queued(queue, max_attempts=1)
    queued(queue, "next.wav")
    full = error("E_DISK_FULL", "no space left on /out")
    for fault in range(5):  # no number of faults uses up the attempts
        after = queue.fail(claimed(queue), full, retry=RetryClass.PAUSE)
        assert (after.state, after.attempt) == (JobState.QUEUED, 0)
        pause = queue.paused()
        assert (pause.paused, pause.code, pause.reason) == (True, "E_DISK_FULL", "no space left on /out")
        assert pause.since == EPOCH, f"fault {fault}: the pause began with the first"
        assert queue.claim("w1", pid=1, lease_seconds=LEASE_S) is None
        clock.step(30)
        assert queue.paused().paused is False
    assert outcomes(queue, job.id) == [Outcome.RETRY] * 5
    finished(queue, claimed(queue))
    assert queue.paused().code == "", "a job that is done shows that the machine is well"


def test_a_fault_does_not_shorten_a_pause_by_a_person(queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    job = claimed(queue)
    queue.pause("moving house")
    queue.fail(job, error("E_DISK_FULL"), retry=RetryClass.PAUSE)
    clock.step(1e6)
    pause = queue.paused()
    assert (pause.paused, pause.reason, pause.until) == (True, "moving house", math.inf)


def test_a_pause_holds_every_claim_until_resumed(queue: Queue, tmp_path: Path, clock: FakeClock) -> None:
    queued(queue)
    queue.pause("maintenance")
    assert open_queue(tmp_path, clock).claim("w1", pid=1, lease_seconds=LEASE_S) is None, "it outlives the process"
    queue.resume()
    assert claimed(queue)


def test_our_own_stop_is_not_counted(queue: Queue) -> None:
    job = queued(queue, max_attempts=1)
    back = queue.interrupt(claimed(queue), stage_seconds={"decode": 1.0})
    assert (back.state, back.attempt, back.claim_no) == (JobState.QUEUED, 0, 1)
    assert outcomes(queue, job.id) == [Outcome.INTERRUPTED]
    assert claimed(queue).id == job.id


# --- crash, rescue, orphans ---


def test_a_crash_is_tried_once_more_after_half_a_minute_then_fails(queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    job = claimed(queue)
    first = queue.crashed(job.id, job.claim_no, signal=6, message="the worker was aborted (signal 6)")
    assert (first.state, first.attempt, first.crashes, first.run_after) == (JobState.QUEUED, 1, 1, EPOCH + 30)
    assert queue.attempts(job.id)[0].signal == 6
    clock.step(30)
    again = claimed(queue)
    second = queue.crashed(again.id, again.claim_no, signal=9, message="the worker was killed (signal 9)")
    assert second.state is JobState.FAILED
    assert second.error is not None
    assert second.error.code == "E_CRASH_REPEATED"
    assert outcomes(queue, job.id) == [Outcome.CRASHED] * 2


def test_a_crash_after_the_end_changes_nothing(queue: Queue) -> None:
    queued(queue)
    done = finished(queue, claimed(queue))
    assert queue.crashed(done.id, 1, signal=11, message="late") == done


def test_a_crash_of_an_older_claim_changes_nothing(queue: Queue) -> None:
    queued(queue)
    queue.interrupt(claimed(queue))
    fresh = claimed(queue)
    assert queue.crashed(fresh.id, 1, signal=11, message="late") == fresh


def test_only_an_expired_lease_is_rescued(queue: Queue, clock: FakeClock) -> None:
    queued(queue, "a")
    queued(queue, "b")
    lives, dies = claimed(queue, "w1"), claimed(queue, "w2")
    clock.step(20)
    queue.heartbeat(lives, lease_seconds=LEASE_S)
    clock.step(15)
    (rescued,) = queue.rescue_expired()
    assert (rescued.id, rescued.state, rescued.attempt) == (dies.id, JobState.QUEUED, 1)
    assert queue.get(lives.id).state is JobState.RUNNING
    assert queue.rescue_expired() == []


def test_at_the_daemons_start_every_running_job_is_released_without_waiting(queue: Queue) -> None:
    queued(queue, "a")
    queue.submit(new_job("b"))
    job = claimed(queue)
    assert [(j.id, j.state) for j in queue.unfinished()] == [(1, JobState.RUNNING), (2, JobState.INGESTING)]
    (released,) = queue.release_orphans()
    assert (released.id, released.state, released.run_after) == (job.id, JobState.QUEUED, EPOCH)
    assert outcomes(queue, job.id) == [Outcome.CRASHED]


def test_a_job_that_takes_the_daemon_down_each_time_fails_in_the_end(queue: Queue) -> None:
    queued(queue, max_attempts=2)
    claimed(queue)
    queue.release_orphans()
    claimed(queue)
    (job,) = queue.release_orphans()
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "E_ABANDONED"


def test_jobs_of_another_machine_that_lives_are_not_orphans(queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    other = Queue(queue._db, clock, host="box-2")
    claimed(other)
    assert queue.release_orphans(host_alive=lambda host: host == "box-2") == []
    assert len(queue.release_orphans(host_alive=lambda host: False)) == 1

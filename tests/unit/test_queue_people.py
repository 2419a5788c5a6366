"""What people do to jobs: cancel, retry, ask for what is not there."""

from pathlib import Path

import pytest

from rvc_batch.errors import JobNotFound, JobStateConflict, RetryClass
from rvc_batch.jobs.models import JobState, Outcome
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import LEASE_S, FakeClock, claimed, error, finished, new_job, open_queue, outcomes, queued


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Queue:
    return open_queue(tmp_path, clock)


def test_a_queued_job_is_cancelled_at_once(queue: Queue) -> None:
    job = queued(queue)
    assert queue.cancel(job.id).state is JobState.CANCELLED
    assert queue.claim("w1", pid=1, lease_seconds=LEASE_S) is None


def test_a_running_job_learns_of_its_cancellation_by_heartbeat(queue: Queue) -> None:
    queued(queue)
    job = claimed(queue)
    assert queue.cancel(job.id).state is JobState.RUNNING
    assert queue.cancel(job.id).cancel_requested
    assert queue.heartbeat(job, lease_seconds=LEASE_S).cancel_requested
    ended = queue.mark_cancelled(job)
    assert (ended.state, ended.cancel_requested) == (JobState.CANCELLED, False)
    assert outcomes(queue, job.id) == [Outcome.CANCELLED]
    assert [e.note for e in queue.events(job.id)].count("cancel requested") == 1


def test_a_job_cancelled_on_its_way_in_is_never_queued(queue: Queue) -> None:
    job = queue.submit(new_job())
    queue.cancel(job.id)
    assert queue.enqueue(job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("end", ["fail", "interrupt", "crashed", "orphan"])
def test_a_cancelled_job_is_not_tried_again_however_its_attempt_ends(queue: Queue, end: str) -> None:
    queued(queue)
    job = claimed(queue)
    queue.cancel(job.id)
    if end == "fail":
        queue.fail(job, error(), retry=RetryClass.LATER)
    elif end == "interrupt":
        queue.interrupt(job)
    elif end == "crashed":
        queue.crashed(job.id, job.claim_no, signal=9, message="killed")
    else:
        queue.release_orphans()
    assert queue.get(job.id).state is JobState.CANCELLED


def test_a_result_that_was_done_before_the_cancellation_counts(queue: Queue) -> None:
    queued(queue)
    job = claimed(queue)
    queue.cancel(job.id)
    assert finished(queue, job).state is JobState.DONE


def test_a_retry_gives_a_new_budget_and_keeps_the_history(queue: Queue, clock: FakeClock) -> None:
    job = queued(queue, max_attempts=2)
    for _ in range(2):
        taken = claimed(queue)
        queue.crashed(job.id, taken.claim_no, signal=9, message="killed")
        clock.step(30)
    clock.step(1000)
    again = queue.retry(job.id)
    assert (again.state, again.attempt, again.max_attempts, again.crashes) == (JobState.QUEUED, 2, 4, 0)
    assert (again.error, again.finished_at, again.run_after) == (None, None, clock.now)
    assert len(queue.attempts(job.id)) == 2
    assert claimed(queue).claim_no == 3


def test_a_retry_reserves_its_name_again(queue: Queue) -> None:
    job = queued(queue, content="1")
    queue.cancel(job.id)
    queued(queue, content="2")
    assert queue.retry(job.id).output_rel == b"anna/take (2).wav"


def test_a_retry_of_what_is_at_work_as_another_job_is_refused(queue: Queue) -> None:
    job = queued(queue)
    queue.cancel(job.id)
    queued(queue)
    with pytest.raises(JobStateConflict, match="at work already as job 2"):
        queue.retry(job.id)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_done_job_can_be_neither_cancelled_nor_retried(queue: Queue, verb: str) -> None:
    queued(queue)
    job = finished(queue, claimed(queue))
    with pytest.raises(JobStateConflict, match="is done"):
        getattr(queue, verb)(job.id)


@pytest.mark.parametrize("verb", ["get", "cancel", "retry", "attempts", "enqueue"])
def test_an_unknown_number_is_named(queue: Queue, verb: str) -> None:
    with pytest.raises(JobNotFound, match="no job 77"):
        getattr(queue, verb)(77)

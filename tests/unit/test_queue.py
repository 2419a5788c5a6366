"""Every verb of the queue, by the rule it keeps. Long because the verbs are many and share one set of fakes."""

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rvc_batch.errors import JobNotFound, JobStateConflict, LeaseLost, RetryClass
from rvc_batch.jobs.models import Arrival, ArrivalVerdict, JobState, Outcome
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.records import dedupe_key
from tests.queue_fakes import EPOCH, LEASE_S, FakeClock, claimed, error, finished, new_job, open_queue, queued, report


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Queue:
    return open_queue(tmp_path, clock)


def outcomes(queue: Queue, job_id: int) -> list[Outcome | None]:
    return [a.outcome for a in queue.attempts(job_id)]


def states(queue: Queue, job_id: int) -> list[JobState]:
    return [e.to_state for e in queue.events(job_id)]


# --- from file to job ---


def test_a_submitted_job_keeps_every_field_of_the_file(queue: Queue) -> None:
    new = new_job("bad\udcff.wav".encode("utf-8", "surrogateescape").decode("utf-8", "replace"), priority=4)
    job = queue.submit(new)
    assert job == queue.get(job.id)
    assert job.state is JobState.INGESTING
    assert (job.source_rel, job.output_rel, job.settings) == (new.source_rel, new.output_rel, new.settings)
    assert (job.source_device, job.source_inode) == (2**64 - 7, 2**63 + 5)
    assert (job.priority, job.seconds_in, job.created_at) == (4, 60.0, EPOCH)
    assert job.dedupe_key == dedupe_key(new, new.settings.digest())


def test_undecodable_names_come_back_byte_for_byte(queue: Queue) -> None:
    new = new_job()
    raw = b"anna/bad\xff\n.wav"
    job = queue.submit(type(new)(**{**new.__dict__, "source_rel": raw, "output_rel": raw}))
    assert (job.source_rel, job.output_rel) == (raw, raw)
    assert queue.latest_for_source(raw) == job


def test_an_ingesting_job_cannot_be_claimed(queue: Queue) -> None:
    queue.submit(new_job())
    assert queue.claim("w1", pid=1, lease_seconds=LEASE_S) is None


def test_a_rejected_file_is_a_failed_job_with_its_error(queue: Queue, clock: FakeClock) -> None:
    job = queue.submit(new_job())
    clock.step(1)
    failed = queue.reject(job.id, error("E_INPUT_EMPTY"))
    assert (failed.state, failed.finished_at, failed.error) == (JobState.FAILED, EPOCH + 1, error("E_INPUT_EMPTY"))


def test_enqueue_twice_is_refused(queue: Queue) -> None:
    job = queued(queue)
    with pytest.raises(JobStateConflict, match="is queued, expected ingesting"):
        queue.enqueue(job.id)


def test_the_same_file_dropped_twice_is_a_duplicate_of_the_active_one(queue: Queue) -> None:
    first = queued(queue)
    second = queue.submit(new_job())
    assert (second.state, second.duplicate_of) == (JobState.DUPLICATE, first.id)
    assert states(queue, second.id) == [JobState.INGESTING, JobState.DUPLICATE]
    assert queue.active_duplicate(first.dedupe_key) == first


def test_a_group_is_submitted_in_order_and_comes_back_as_it_is_stored(queue: Queue) -> None:
    submit = queue.submit_all([new_job(f"{n}.wav") for n in "cab"])
    assert [job.source_name for job in submit] == ["anna/c.wav", "anna/a.wav", "anna/b.wav"]
    assert submit == [queue.get(job.id) for job in submit]
    assert queue.enqueue_all([job.id for job in submit]) == [queue.get(job.id) for job in submit]
    assert queue.counts()[JobState.QUEUED] == 3
    assert [event.to_state for event in queue.events(2)] == [JobState.INGESTING, JobState.QUEUED]
    assert queue.submit_all([]) == queue.enqueue_all([]) == []


def test_a_group_has_its_own_twins_and_its_own_names(queue: Queue) -> None:
    taken = queued(queue, "x.wav")
    new = [
        new_job("x.wav", content="other"),  # its name is reserved by an earlier job
        new_job("y.wav"),
        new_job("y.wav", content="other"),  # and this one's by the one before
        new_job("y.wav"),  # the same file again
        new_job("x.wav"),  # at work already
    ]
    submit = queue.submit_all(new, taken=lambda name: name == b"anna/x (2).wav")
    assert [job.output_rel for job in submit[:3]] == [b"anna/x (3).wav", b"anna/y.wav", b"anna/y (2).wav"]
    assert [job.duplicate_of for job in submit] == [None, None, None, submit[1].id, taken.id]
    assert submit == [queue.get(job.id) for job in submit]
    assert [event.to_state for event in queue.events(submit[3].id)] == [JobState.INGESTING, JobState.DUPLICATE]
    assert len(queue.list()) == 6


def test_a_group_is_queued_as_a_whole_or_not_at_all(queue: Queue) -> None:
    one, other = queue.submit_all([new_job("1.wav"), new_job("2.wav")])
    queue.cancel(one.id)
    queue.reject(other.id, error())
    with pytest.raises(JobStateConflict, match="job 2 is failed"):
        queue.enqueue_all([one.id, other.id])
    assert queue.get(one.id).state is JobState.INGESTING
    with pytest.raises(JobNotFound):
        queue.enqueue_all([one.id, 99])
    assert [job.state for job in queue.enqueue_all([one.id])] == [JobState.CANCELLED]


def test_the_same_file_is_converted_again_once_the_first_is_done(queue: Queue) -> None:
    queued(queue)
    finished(queue, claimed(queue))
    assert queue.submit(new_job()).state is JobState.INGESTING


@pytest.mark.parametrize(
    "other",
    [
        new_job("other.wav", content="same"),
        new_job(voice="tom", content="same"),
        new_job(content="same", settings=new_job().settings.with_changes(transpose=12.0)),
        new_job(content="different"),
    ],
    ids=["name", "voice", "settings", "content"],
)
def test_what_differs_in_name_voice_settings_or_content_is_no_duplicate(queue: Queue, other: object) -> None:
    queued(queue, content="same")
    assert queue.submit(other).state is JobState.INGESTING  # type: ignore[arg-type]


def test_a_second_file_of_one_name_gets_a_number(queue: Queue) -> None:
    names = [queue.submit(new_job(content=str(n))).output_rel for n in range(3)]
    assert names == [b"anna/take.wav", b"anna/take (2).wav", b"anna/take (3).wav"]


def test_names_that_differ_in_case_or_composition_collide(queue: Queue) -> None:
    assert queue.submit(new_job("Caf\u00e9.wav", content="1")).output_rel == "anna/Caf\u00e9.wav".encode()
    assert queue.submit(new_job("cafe\u0301.WAV", content="2")).output_rel == "anna/cafe\u0301 (2).WAV".encode()


def test_a_name_taken_in_the_outbox_is_skipped(queue: Queue) -> None:
    job = queue.submit(new_job(), taken=lambda name: name in (b"anna/take.wav", b"anna/take (2).wav"))
    assert job.output_rel == b"anna/take (3).wav"


def test_a_job_that_ended_gives_its_name_back(queue: Queue) -> None:
    queue.cancel(queued(queue).id)
    assert queue.submit(new_job()).output_rel == b"anna/take.wav"


def test_a_running_job_can_take_another_name(queue: Queue) -> None:
    queued(queue)
    job = claimed(queue)
    renamed = queue.reserve_another_name(job, taken=lambda name: name == b"anna/take (2).wav")
    assert renamed.output_rel == b"anna/take (3).wav"
    assert queue.submit(new_job(content="x")).output_rel == b"anna/take.wav"


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


# --- people ---


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

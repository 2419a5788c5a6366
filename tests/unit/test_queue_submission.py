"""From file to job: what is kept, what is a duplicate, which name the result gets."""

from pathlib import Path

import pytest

from rvc_batch.errors import JobNotFound, JobStateConflict
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.records import dedupe_key
from tests.queue_fakes import EPOCH, LEASE_S, FakeClock, claimed, error, finished, new_job, open_queue, queued, states


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Queue:
    return open_queue(tmp_path, clock)


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

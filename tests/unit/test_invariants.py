"""Each invariant holds for a box that worked, and each way of breaking it is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rvc_batch.errors import RetryClass
from rvc_batch.home import Home
from rvc_batch.jobs import publish
from rvc_batch.jobs.invariants import check_home
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.sources import Sources
from tests.queue_fakes import FakeClock, claimed, error, new_job, report

STAGES = {"decode": 1.0, "synth": 4.0}


class Box:
    """A home with one job in each of the states it can be in, made the way the daemon makes them."""

    def __init__(self, home: Home) -> None:
        self.home, self.clock = home, FakeClock()
        home.create()
        self.queue = Queue.open(home.database, clock=self.clock)
        self.sources = Sources(home, keep_sources=True)
        self.done = self._finish(self._put("done.wav"))
        self._put("failed.wav")
        failing = claimed(self.queue)
        self.clock.step(6)
        self.failed = self.queue.fail(failing, error(), retry=RetryClass.NEVER, stage_seconds=STAGES)
        self.sources.settle(self.failed)
        self.queue.submit(new_job("later.wav"))
        self.cancelled = self.queue.cancel(self._put("cancelled.wav").id)
        self.sources.settle(self.cancelled)
        self._put("running.wav")
        self.running = claimed(self.queue)
        publish.prepare(home.outbox, self.running)
        publish.temp_path(home.outbox, self.running).write_bytes(b"half")
        self.queued = self._put("queued.wav")

    def _put(self, name: str) -> Job:
        content = b"x" * 1000
        job = self.queue.submit(new_job(name))
        self.sources.open_folders([job])
        self.sources.path(job).write_bytes(content)
        return self.queue.enqueue(job.id)

    def _finish(self, job: Job) -> Job:
        job = claimed(self.queue)
        publish.prepare(self.home.outbox, job)
        temp = publish.temp_path(self.home.outbox, job)
        temp.write_bytes(b"result")
        sealed = publish.Sealed(*publish.durable.digest(temp))
        self.clock.step(6)
        done = publish.deliver(self.queue, self.home.outbox, job, temp, sealed=sealed, report=report())
        self.sources.settle(done)
        return done

    def sql(self, statement: str) -> None:
        """Change the database behind the back of its constraints."""
        with closing(sqlite3.connect(self.home.database)) as raw:
            raw.execute("PRAGMA ignore_check_constraints = ON")
            raw.execute(statement)
            raw.commit()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(Home(tmp_path))
    yield made
    made.queue.close()


def found(box: Box) -> set[tuple[str, int | None]]:
    return {(v.rule, v.job_id) for v in check_home(box.home, is_live=False)}


def test_a_box_with_jobs_in_every_state_breaks_no_rule(box: Box) -> None:
    states = {job.state for job in box.queue.list()}
    assert states == set(JobState) - {JobState.DUPLICATE}
    assert check_home(box.home, is_live=False) == []


def test_a_retried_job_whose_source_lies_in_failed_is_well(box: Box) -> None:
    path = box.sources.set_aside(box.failed)
    assert path is None, "the content of these jobs is not what their rows say"
    box.sql(f"UPDATE jobs SET content_sha256 = '{publish.durable.digest(box.home.failed / 'anna/failed.wav')[0]}'")
    box.queue.retry(box.failed.id)
    assert check_home(box.home, is_live=False) == []
    (box.home.failed / "anna" / "failed.wav").unlink()
    assert found(box) == {("I7", box.failed.id)}


@pytest.mark.parametrize(
    ("rules", "victim", "statement"),
    [
        ({"I1"}, "running", "UPDATE jobs SET lease_until = NULL WHERE id = {}"),
        ({"I1"}, "queued", "UPDATE jobs SET worker_id = 'w9' WHERE id = {}"),
        ({"I2"}, "done", "UPDATE jobs SET finished_at = NULL WHERE id = {}"),
        ({"I2"}, "queued", "UPDATE jobs SET finished_at = 5.0 WHERE id = {}"),
        ({"I3"}, "failed", "UPDATE jobs SET attempt = 9 WHERE id = {}"),
        ({"I4"}, "done", "DELETE FROM attempts WHERE job_id = {}"),
        ({"I4"}, "done", "UPDATE attempts SET outcome = NULL, ended_at = NULL WHERE job_id = {}"),
        ({"I4"}, "running", "UPDATE attempts SET outcome = 'done', ended_at = 1e12 WHERE job_id = {}"),
        ({"I4"}, "running", "UPDATE attempts SET claim_no = claim_no + 5 WHERE job_id = {}"),
        ({"I5", "I8"}, "done", "UPDATE jobs SET output_sha256 = NULL WHERE id = {}"),
        ({"I10", "I12"}, "done", "DELETE FROM events WHERE job_id = {}"),
        ({"I10", "I12"}, "done", "UPDATE events SET from_state = NULL WHERE job_id = {}"),
        ({"I11"}, "failed", "UPDATE stage_timings SET seconds = 1e6 WHERE attempt_id = {0}"),
        ({"I12"}, "queued", "DELETE FROM events WHERE job_id = {} AND to_state = 'queued'"),
        ({"I12"}, "done", "UPDATE events SET to_state = 'failed' WHERE job_id = {} AND to_state = 'done'"),
        ({"I12"}, "done", "UPDATE events SET from_state = 'queued' WHERE job_id = {} AND to_state = 'done'"),
    ],
)
def test_each_broken_row_is_named_with_its_rule(box: Box, rules: set[str], victim: str, statement: str) -> None:
    number = getattr(box, victim).id
    box.sql(statement.format(number))
    assert found(box) == {(rule, number) for rule in rules}


def test_two_jobs_with_one_output_name_or_one_content_are_both_named(box: Box) -> None:
    both = {box.queued.id, box.running.id}
    box.sql("DROP INDEX ux_jobs_output_key")
    box.sql(f"UPDATE jobs SET output_key = X'61' WHERE id IN ({box.queued.id}, {box.running.id})")
    assert found(box) == {("I6", number) for number in both}
    box.sql("UPDATE jobs SET output_key = id WHERE output_key IS NOT NULL")
    box.sql("DROP INDEX ux_jobs_active_dedupe_key")
    box.sql(f"UPDATE jobs SET dedupe_key = 'same' WHERE id IN ({box.queued.id}, {box.running.id}, {box.done.id})")
    assert found(box) == {("I9", number) for number in both}


def orphan_folder(box: Box) -> None:
    (box.home.work / "abc").mkdir()


def lost_source(box: Box) -> None:
    box.sources.path(box.queued).unlink()


def cut_source(box: Box) -> None:
    box.sources.path(box.queued).write_bytes(b"x" * 999)


def unsettled_source(box: Box) -> None:
    box.sources.open_folders([box.done])


def orphan_temp(box: Box) -> None:
    (box.home.outbox / publish.TEMP_FOLDER / "abc.1.part").touch()


def damaged_result(box: Box) -> None:
    publish.output_path(box.home.outbox, box.done).write_bytes(b"resulT")


@pytest.mark.parametrize(
    ("break_it", "rule", "victim"),
    [
        (orphan_folder, "I7", None),
        (lost_source, "I7", "queued"),
        (cut_source, "I7", "queued"),
        (unsettled_source, "I7", "done"),
        (orphan_temp, "I8", None),
        (damaged_result, "I8", "done"),
    ],
)
def test_files_that_do_not_fit_the_rows_are_named(
    box: Box, break_it: Callable[[Box], None], rule: str, victim: str | None
) -> None:
    break_it(box)
    assert found(box) == {(rule, None if victim is None else getattr(box, victim).id)}


def test_an_output_the_user_took_away_is_none_of_our_business(box: Box) -> None:
    publish.output_path(box.home.outbox, box.done).unlink()
    assert check_home(box.home, is_live=False) == []


def test_with_a_daemon_at_work_only_what_stays_wrong_counts(box: Box) -> None:
    folder = box.home.work / "passing"
    folder.mkdir()
    waits: list[float] = []

    def settle(seconds: float) -> None:
        waits.append(seconds)
        folder.rmdir()

    assert check_home(box.home, is_live=True, sleep=settle) == []
    assert len(waits) == 1
    folder.mkdir()
    assert [v.rule for v in check_home(box.home, is_live=True, sleep=waits.append)] == ["I7"]

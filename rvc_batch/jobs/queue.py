"""The queue: every change to the job table, one transaction per verb, each with an entry in the journal.

A job is a row with a state, a lease and a history; claiming never deletes it. Whoever runs a job holds (worker, claim
number); every later write carries both, so a worker that lost its lease changes nothing. The rules of what follows a
failure are in `retry_policy`; files are moved by the caller, never here.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.db.engine import BUSY_WAITS, open_writer, quick_check
from rvc_batch.db.faults import missing
from rvc_batch.db.migrate import bring_up_to_date, require_current
from rvc_batch.db.schema import attempts, jobs
from rvc_batch.errors import JobStateConflict, RetryClass
from rvc_batch.jobs.history import History
from rvc_batch.jobs.models import CRASHED_CODE, TERMINAL, Heartbeat, Job, JobError, JobState, NewJob, Outcome
from rvc_batch.jobs.output_names import candidates, output_key
from rvc_batch.jobs.reading import Jobs
from rvc_batch.jobs.records import error_values, job_of, values_of
from rvc_batch.jobs.retry_policy import after_crash, after_error
from rvc_batch.jobs.transitions import abandon, current, end_attempt, expect, follow, journal, lost, move, owned

if TYPE_CHECKING:
    from rvc_batch.engine.types import ConversionReport

Taken = Callable[[bytes], bool]


def nothing_taken(_output_rel: bytes) -> bool:
    """Say that no file of the outbox is in the way."""
    return False


class Queue(History):
    """The job table with all verbs that change it."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        owner: bool = True,
        busy_waits: int = BUSY_WAITS,
    ) -> Self:
        """Open the database to write.

        Args:
            path: the database file.
            clock: UTC epoch seconds.
            owner: the daemon, which creates, checks, upgrades and checkpoints the file. Others (worker, commands)
                need a file with the schema of this version.
            busy_waits: waits of ten seconds for the write lock before a verb is given up.

        Raises:
            DatabaseUnusable: no database, damaged, or made by a newer version.
        """
        if not owner and not path.is_file():
            raise missing(path)
        database = open_writer(path, checkpoints=owner, waits=busy_waits)
        try:
            if owner:
                quick_check(database)
                bring_up_to_date(database)
            else:
                require_current(database)
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    def check_file(self) -> None:
        """Make sure that the database file was not deleted or replaced while it is in use.

        Raises:
            DatabaseUnusable: it was; everything written since is lost.
        """
        self._db.check_file()

    # --- from file to job ---

    def submit(self, new: NewJob, *, taken: Taken = nothing_taken, actor: str = "watcher") -> Job:
        """Insert a job as `ingesting` and reserve its output name, or as `duplicate` of one that is active.

        Args:
            new: the accepted file.
            taken: whether a file of the outbox already has this name.
            actor: for the journal.
        """
        return self._with_free_name(new.output_rel, taken, partial(self._submit, new=new, actor=actor))

    def enqueue(self, job_id: int, *, actor: str = "watcher") -> Job:
        """Make a job claimable now that its file is in place; `cancelled` if that was asked for meanwhile.

        Raises:
            JobStateConflict: the job is not `ingesting`.
        """

        def body(c: Connection) -> Job:
            job, at = self._get(c, job_id), self._clock()
            expect(job, JobState.INGESTING)
            to = JobState.CANCELLED if job.cancel_requested else JobState.QUEUED
            return move(c, at, job, to, actor, queued_at=at)

        return self._db.write(body)

    def reject(self, job_id: int, error: JobError, *, actor: str = "watcher") -> Job:
        """Fail a job whose file could not be brought in.

        Raises:
            JobStateConflict: the job is not `ingesting`.
        """

        def body(c: Connection) -> Job:
            job = self._get(c, job_id)
            expect(job, JobState.INGESTING)
            return move(c, self._clock(), job, JobState.FAILED, actor, error.code, **error_values(error))

        return self._db.write(body)

    def reserve_another_name(self, job: Job, *, taken: Taken = nothing_taken) -> Job:
        """Reserve the next free output name, because a file appeared under the present one.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        return self._with_free_name(
            job.output_rel, lambda name: name == job.output_rel or taken(name), partial(self._rename, job=job)
        )

    # --- the worker's side ---

    def claim(self, worker_id: str, *, pid: int, lease_seconds: float, warm_voice: str | None = None) -> Job | None:
        """Take the next job that may run, or nothing; counts an attempt.

        Jobs of equal priority whose voice is `warm_voice` go first, until others have waited ten minutes.
        """

        def body(c: Connection) -> Job | None:
            if self._paused(c).paused:
                return None
            at = self._clock()
            claim = statements.claim(at, worker_id=worker_id, lease_until=at + lease_seconds, warm_voice=warm_voice)
            row = c.execute(claim).mappings().one_or_none()
            if row is None:
                return None
            job = job_of(row)
            attempt = {"job_id": job.id, "claim_no": job.claim_no, "worker_id": worker_id, "pid": pid}
            c.execute(attempts.insert().values(**attempt, host=self._host, started_at=at))
            journal(c, at, job.id, JobState.QUEUED, JobState.RUNNING, worker_id, f"claim {job.claim_no}")
            return job

        return self._db.write(body)

    def heartbeat(
        self,
        job: Job,
        *,
        lease_seconds: float,
        stage: str | None = None,
        progress_done: float | None = None,
        progress_total: float | None = None,
    ) -> Heartbeat:
        """Extend the lease and note progress; what is None stays as it is."""
        progress = {"stage": stage, "progress_done": progress_done, "progress_total": progress_total}
        values = {name: value for name, value in progress.items() if value is not None}

        def body(c: Connection) -> Heartbeat:
            lease_until = self._clock() + lease_seconds
            beat = sa.update(jobs).where(*owned(job)).values(lease_until=lease_until, **values)
            cancel = c.execute(beat.returning(jobs.c.cancel_requested)).scalar_one_or_none()
            return Heartbeat(alive=cancel is not None, cancel_requested=bool(cancel))

        return self._db.write(body)

    def record_intent(self, job: Job, *, output_sha256: str, output_size: int) -> None:
        """Note what is about to be published, so that a crash in between is recognised as success.

        Raises:
            LeaseLost: the job is no longer ours; publish nothing.
        """
        intent = sa.update(jobs).where(*owned(job)).values(output_sha256=output_sha256, output_size=output_size)

        def body(c: Connection) -> None:
            if c.execute(intent.returning(jobs.c.id)).first() is None:
                raise lost(job)

        self._db.write(body)

    def finish(self, job: Job, report: ConversionReport, *, peak_rss: int | None = None) -> Job:
        """Record a published result with its timings and warnings.

        Raises:
            LeaseLost: the job is no longer ours; nothing was written.
            JobStateConflict: `record_intent` was not called.
        """
        on_job: dict[str, Any] = {
            "seconds_in": report.seconds_in,
            "wall_seconds": report.wall_seconds,
            "voice_sha256": report.voice_sha256,
            "warnings_json": json.dumps(report.warnings),
            "progress_done": report.seconds_in,
            "progress_total": report.seconds_in,
        }
        rss = report.peak_rss_bytes if peak_rss is None else peak_rss
        report_json = json.dumps(dataclasses.asdict(report), sort_keys=True)

        def body(c: Connection) -> Job:
            now, at = _ready(c, job), self._clock()
            end_attempt(
                c, at, now, Outcome.DONE, stage_seconds=report.stage_seconds, peak_rss=rss, report_json=report_json
            )
            self._forget_fault(c)
            return move(c, at, now, JobState.DONE, now.worker_id or "", **error_values(None), **on_job)

        return self._db.write(body)

    def finish_published(self, job: Job, *, actor: str = "recovery") -> Job:
        """Record a result that was found published after its worker died; there is no report of it.

        Raises:
            LeaseLost: the job is no longer running under this claim.
            JobStateConflict: no intent was recorded.
        """

        def body(c: Connection) -> Job:
            now, at = _ready(c, job), self._clock()
            end_attempt(c, at, now, Outcome.DONE)
            note = "published before its end was recorded"
            return move(c, at, now, JobState.DONE, actor, note, **error_values(None))

        return self._db.write(body)

    def fail(
        self,
        job: Job,
        error: JobError,
        *,
        retry: RetryClass,
        stage_seconds: dict[str, float] | None = None,
        peak_rss: int | None = None,
    ) -> Job:
        """Record an error; the retry class and the attempts left decide whether the job is tried again.

        With `RetryClass.PAUSE` the queue pauses for half a minute, after which one job tries again.

        Raises:
            LeaseLost: the job is no longer ours; nothing was written.
        """

        def body(c: Connection) -> Job:
            now, at = current(c, job), self._clock()
            step = after_error(now, retry)
            if retry is RetryClass.PAUSE:
                self._pause_for_fault(c, error)
            end_attempt(c, at, now, step.outcome, error=error, stage_seconds=stage_seconds, peak_rss=peak_rss)
            given_back = step.refunded and retry is RetryClass.REFUND
            return follow(c, at, now, step, error, now.worker_id or "", refunds=now.refunds + given_back)

        return self._db.write(body)

    def interrupt(self, job: Job, *, stage_seconds: dict[str, float] | None = None) -> Job:
        """Give a job back because we stop: the attempt does not count.

        Raises:
            LeaseLost: the job is no longer ours.
        """

        def body(c: Connection) -> Job:
            now, at = current(c, job), self._clock()
            step = after_error(now, RetryClass.DROP)
            end_attempt(c, at, now, step.outcome, stage_seconds=stage_seconds)
            return follow(c, at, now, step, None, now.worker_id or "")

        return self._db.write(body)

    def mark_cancelled(self, job: Job) -> Job:
        """End a running job that somebody cancelled.

        Raises:
            LeaseLost: the job is no longer ours.
        """

        def body(c: Connection) -> Job:
            now, at = current(c, job), self._clock()
            end_attempt(c, at, now, Outcome.CANCELLED)
            return move(c, at, now, JobState.CANCELLED, now.worker_id or "")

        return self._db.write(body)

    # --- the supervisor's side ---

    def crashed(self, job_id: int, claim_no: int, *, signal: int | None, message: str) -> Job:
        """Record that the worker died during this claim; changes nothing if the claim has already ended."""

        def body(c: Connection) -> Job:
            job, at = self._get(c, job_id), self._clock()
            if job.state is not JobState.RUNNING or job.claim_no != claim_no:
                return job
            step = after_crash(job)
            error = JobError(code=step.code or CRASHED_CODE, message=message, stage=job.stage or "")
            end_attempt(c, at, job, step.outcome, error=error, signal=signal)
            return follow(c, at, job, step, error, "supervisor", crashes=job.crashes + 1)

        return self._db.write(body)

    def release_orphans(self, *, host_alive: Callable[[str], bool] | None = None) -> Jobs:
        """Give back every running job, because no worker can be alive; returns them as they are now.

        Call it at the daemon's start, after `finish_published` for those `unfinished` jobs whose result is there.

        Args:
            host_alive: with several machines on one database: whether a machine still runs its jobs.
        """
        present = (attempts.c.job_id == jobs.c.id) & (attempts.c.claim_no == jobs.c.claim_no)
        running = sa.select(jobs, attempts.c.host).join(attempts, present).where(statements.in_state("running"))
        message = "the daemon ended without recording how this attempt went"

        def body(c: Connection) -> Jobs:
            rows = c.execute(running.order_by(jobs.c.id)).mappings().all()
            left = [job_of(row) for row in rows if host_alive is None or not host_alive(row["host"])]
            return [abandon(c, self._clock(), job, Outcome.CRASHED, message, "recovery") for job in left]

        return self._db.write(body)

    def rescue_expired(self) -> Jobs:
        """Give back running jobs whose lease has expired; returns them as they are now."""
        message = "no heartbeat for the length of the lease"

        def body(c: Connection) -> Jobs:
            at = self._clock()
            expired = jobs.select().where(statements.in_state("running"), jobs.c.lease_until < at)
            rows = c.execute(expired.order_by(jobs.c.id)).mappings().all()
            return [abandon(c, at, job_of(row), Outcome.FENCED, message, "rescue") for row in rows]

        return self._db.write(body)

    # --- people ---

    def cancel(self, job_id: int, *, actor: str = "user") -> Job:
        """Cancel a queued job at once; ask a running one to stop at its next segment.

        Raises:
            JobNotFound: no job has this number.
            JobStateConflict: the job has already ended.
        """
        asked = sa.update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True).returning(*jobs.c)

        def body(c: Connection) -> Job:
            job, at = self._get(c, job_id), self._clock()
            if job.state in TERMINAL:
                raise JobStateConflict(f"job {job_id} is {job.state}; only jobs that have not ended can be cancelled")
            if job.state is JobState.QUEUED:
                return move(c, at, job, JobState.CANCELLED, actor)
            if not job.cancel_requested:
                journal(c, at, job.id, job.state, job.state, actor, "cancel requested")
            return job_of(c.execute(asked).mappings().one())

        return self._db.write(body)

    def retry(self, job_id: int, *, taken: Taken = nothing_taken, actor: str = "user") -> Job:
        """Queue a failed or cancelled job again, with as many attempts as at first; its history stays.

        Raises:
            JobNotFound: no job has this number.
            JobStateConflict: the job is neither failed nor cancelled, or the same file is at work as another job.
        """
        wanted = self.get(job_id).output_rel
        return self._with_free_name(wanted, taken, partial(self._retry, job_id=job_id, actor=actor))

    # --- output names ---

    def _with_free_name(self, wanted: bytes, taken: Taken, body: Callable[..., Job | None]) -> Job:
        """Run `body(connection, name=…)` with one name after the other until it does not return None."""
        free = (name for name in candidates(wanted) if not taken(name))
        results = (self._db.write(partial(body, name=name)) for name in free)
        return next(job for job in results if job is not None)

    def _submit(self, c: Connection, *, name: bytes, new: NewJob, actor: str) -> Job | None:
        values, at = values_of(new), self._clock()
        first = self._active_duplicate(c, values["dedupe_key"])
        if first is None and _is_reserved(c, name):
            return None
        values |= {"public_id": secrets.token_hex(6), "output_rel": name, "created_at": at, "run_after": at}
        if first is None:
            values |= {"state": str(JobState.INGESTING), "output_key": output_key(name)}
        else:
            values |= {"state": str(JobState.DUPLICATE), "duplicate_of": first.id, "finished_at": at}
        job = job_of(c.execute(jobs.insert().values(**values).returning(*jobs.c)).mappings().one())
        journal(c, at, job.id, None, JobState.INGESTING, actor)
        if first is not None:
            journal(c, at, job.id, JobState.INGESTING, JobState.DUPLICATE, actor, f"of job {first.id}")
        return job

    def _rename(self, c: Connection, *, name: bytes, job: Job) -> Job | None:
        now = current(c, job)
        if _is_reserved(c, name):
            return None
        renamed = sa.update(jobs).where(*owned(job)).values(output_rel=name, output_key=output_key(name))
        journal(c, self._clock(), job.id, now.state, now.state, now.worker_id or "", "output name was taken")
        return job_of(c.execute(renamed.returning(*jobs.c)).mappings().one())

    def _retry(self, c: Connection, *, name: bytes, job_id: int, actor: str) -> Job | None:
        job, at = self._get(c, job_id), self._clock()
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            raise JobStateConflict(f"job {job_id} is {job.state}; only failed and cancelled jobs can be retried")
        twin = self._active_duplicate(c, job.dedupe_key)
        if twin is not None:
            raise JobStateConflict(f"job {job_id} is at work already as job {twin.id}; wait for that one")
        if _is_reserved(c, name):
            return None
        values = {
            "output_rel": name,
            "output_key": output_key(name),
            "max_attempts": job.attempt + jobs.c.budget,
            "crashes": 0,
            "refunds": 0,
            "run_after": at,
            "queued_at": at,
            "finished_at": None,
        }
        return move(c, at, job, JobState.QUEUED, actor, "retry", **values, **error_values(None))


def _ready(c: Connection, job: Job) -> Job:
    """Return the row as it is now if the claim owns it and its output is recorded."""
    now = current(c, job)
    if now.output_sha256 is None or now.output_size is None:
        raise JobStateConflict(f"job {job.id} has no recorded output; record_intent comes before finish")
    return now


def _is_reserved(c: Connection, name: bytes) -> bool:
    return c.execute(sa.select(jobs.c.id).where(jobs.c.output_key == output_key(name))).first() is not None

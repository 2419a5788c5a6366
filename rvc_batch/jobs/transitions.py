"""The steps a verb of the queue is made of: check the fence, move a row, journal it, end its attempt.

Each works inside the transaction of the verb that calls it, at the time `at` that the verb read once. No step commits.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.db.schema import attempts, events, jobs, stage_timings
from rvc_batch.errors import JobStateConflict, LeaseLost
from rvc_batch.jobs.models import TERMINAL, TRANSITIONS, Job, JobError, JobState, Outcome
from rvc_batch.jobs.records import error_values, job_of
from rvc_batch.jobs.retry_policy import NextStep, after_abandonment


def owned(job: Job) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the fence: running, by this worker, under this claim."""
    return (
        jobs.c.id == job.id,
        statements.in_state("running"),
        jobs.c.worker_id == job.worker_id,
        jobs.c.claim_no == job.claim_no,
    )


def lost(job: Job) -> LeaseLost:
    """Return the error for a claim that no longer owns its job."""
    return LeaseLost(f"job {job.id} is no longer held by claim {job.claim_no} of {job.worker_id}; drop the work")


def current(c: Connection, job: Job) -> Job:
    """Return the row as it is now.

    Raises:
        LeaseLost: the claim no longer owns it.
    """
    row = c.execute(jobs.select().where(*owned(job))).mappings().one_or_none()
    if row is None:
        raise lost(job)
    return job_of(row)


def expect(job: Job, *states: JobState) -> None:
    """Make sure that a row read in this transaction is in one of the states.

    Raises:
        JobStateConflict: it is not.
    """
    if job.state not in states:
        raise JobStateConflict(f"job {job.id} is {job.state}, expected {' or '.join(states)}")


def move(c: Connection, at: float, job: Job, to: JobState, actor: str, note: str = "", **values: Any) -> Job:
    """Change the state of a row read in this transaction, and journal it."""
    assert (job.state, to) in TRANSITIONS, f"{job.state} → {to}"
    values |= {"worker_id": None, "lease_until": None, "cancel_requested": False, "stage": None}
    if to in TERMINAL:
        values |= {"finished_at": at, "output_key": None}
    moved = sa.update(jobs).where(jobs.c.id == job.id).values(state=str(to), **values).returning(*jobs.c)
    journal(c, at, job.id, job.state, to, actor, note)
    return job_of(c.execute(moved).mappings().one())


def journal(
    c: Connection, at: float, job_id: int, from_state: JobState | None, to: JobState, actor: str, note: str = ""
) -> None:
    """Append to the journal."""
    c.execute(
        events.insert().values(
            job_id=job_id,
            at=at,
            from_state=None if from_state is None else str(from_state),
            to_state=str(to),
            actor=actor,
            note=note,
        )
    )


def end_attempt(
    c: Connection,
    at: float,
    job: Job,
    outcome: Outcome,
    *,
    error: JobError | None = None,
    stage_seconds: dict[str, float] | None = None,
    **values: Any,
) -> None:
    """Give the present attempt its one outcome, with stage timings."""
    mine = (attempts.c.job_id == job.id, attempts.c.claim_no == job.claim_no, attempts.c.outcome.is_(None))
    ended = sa.update(attempts).where(*mine).values(ended_at=at, outcome=str(outcome), **error_values(error), **values)
    attempt_id = c.execute(ended.returning(attempts.c.id)).scalar_one()
    timings = [
        {"attempt_id": attempt_id, "seq": seq, "stage": stage, "seconds": max(seconds, 0.0)}
        for seq, (stage, seconds) in enumerate((stage_seconds or {}).items())
    ]
    if timings:
        c.execute(stage_timings.insert(), timings)


def follow(
    c: Connection, at: float, job: Job, step: NextStep, error: JobError | None, actor: str, **values: Any
) -> Job:
    """Move a running row as the retry policy says."""
    if error is not None:
        values |= error_values(error)
    if step.state is JobState.QUEUED:
        values["run_after"] = at + step.delay_s
    attempt = job.attempt - 1 if step.refunded else job.attempt
    note = str(step.outcome) if error is None else f"{step.outcome}: {error.code}"
    return move(c, at, job, step.state, actor, note, attempt=attempt, **values)


def abandon(c: Connection, at: float, job: Job, outcome: Outcome, message: str, actor: str) -> Job:
    """Take a running row from a worker that is gone."""
    step = after_abandonment(job, outcome)
    error = JobError(code=step.code, message=message, stage=job.stage or "")
    end_attempt(c, at, job, step.outcome, error=error)
    return follow(c, at, job, step, error, actor)

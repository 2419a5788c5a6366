"""The steps a verb of the queue is made of: check the fence, move a row, journal it, end its attempt.

Each works inside the transaction of the verb that calls it, at the time `at` that the verb read once. No step commits.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.errors import JobStateConflict, LeaseLost
from rvc_batch.jobs.models import TERMINAL, TRANSITIONS, Job, JobError, JobState, Outcome
from rvc_batch.jobs.records import error_values, job_of
from rvc_batch.jobs.retry_policy import NextStep, after_abandonment


def fence(job: Job) -> dict[str, Any]:
    """Return the parameters of `statements.FENCED`: running, by this worker, under this claim."""
    return {"of_job": job.id, "of_worker": job.worker_id, "of_claim": job.claim_no}


def lost(job: Job) -> LeaseLost:
    """Return the error for a claim that no longer owns its job."""
    return LeaseLost(f"job {job.id} is no longer held by claim {job.claim_no} of {job.worker_id}; drop the work")


def current(c: Connection, job: Job) -> Job:
    """Return the row as it is now.

    Raises:
        LeaseLost: the claim no longer owns it.
    """
    row = c.execute(statements.FENCED, fence(job)).mappings().one_or_none()
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
    """Change the state of a row read in this transaction, and journal it; `values` are plain values."""
    assert (job.state, to) in TRANSITIONS, f"{job.state} → {to}"
    values |= {"worker_id": None, "lease_until": None, "cancel_requested": False, "stage": None}
    if to in TERMINAL:
        values |= {"finished_at": at, "output_key": None}
    journal(c, at, job.id, job.state, to, actor, note)
    moved = c.execute(statements.CHANGE_JOB, {"of_job": job.id, "state": str(to)} | values)
    return job_of(moved.mappings().one())


def journal(
    c: Connection, at: float, job_id: int, from_state: JobState | None, to: JobState, actor: str, note: str = ""
) -> None:
    """Append to the journal."""
    c.execute(statements.JOURNAL, entry(at, job_id, from_state, to, actor, note))


def entry(
    at: float, job_id: int, from_state: JobState | None, to: JobState, actor: str, note: str = ""
) -> dict[str, Any]:
    """Return a row of the journal."""
    before = None if from_state is None else str(from_state)
    return {"job_id": job_id, "at": at, "from_state": before, "to_state": str(to), "actor": actor, "note": note}


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
    values |= {"ended_at": at, "outcome": str(outcome), "of_job": job.id, "of_claim": job.claim_no}
    attempt_id = c.execute(statements.END_ATTEMPT, values | error_values(error)).scalar_one()
    timings = [
        {"attempt_id": attempt_id, "seq": seq, "stage": stage, "seconds": max(seconds, 0.0)}
        for seq, (stage, seconds) in enumerate((stage_seconds or {}).items())
    ]
    if timings:
        c.execute(statements.TIMINGS, timings)


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

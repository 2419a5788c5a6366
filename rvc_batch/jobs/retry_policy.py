"""What becomes of a job whose attempt did not succeed: later, refunded, failed or cancelled.

A pure function of the job and of what happened; the queue writes the answer down.

    never   failed                              refund  given back once, then failed
    pause   given back, the queue waits          later   counted; 10 s, 60 s, 300 s, then failed
    drop    given back (we stopped it ourselves)
    crash   counted; once more after 30 s, then failed
    orphan  counted; the daemon died, which is not the job's fault but may be its doing
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rvc_batch.errors import RetryClass
from rvc_batch.jobs.models import ABANDONED_CODE, CRASH_REPEATED_CODE, CRASHED_CODE, Job, JobState, Outcome

LATER_DELAYS_S = (10.0, 60.0, 300.0)
JITTER = 0.2  # share of a delay, so that jobs that failed together do not return together
CRASH_DELAY_S = 30.0
MAX_CRASHES = 2
REFUND_DELAY_S = 60.0  # time to put the voice right
PAUSE_SECONDS = 30.0  # then one job tries whether the machine is well again


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """Where the job goes, how its attempt ended, and what is counted."""

    state: JobState
    outcome: Outcome
    delay_s: float = 0.0
    refunded: bool = False
    code: str = ""  # replaces the error's code where set


def after_error(job: Job, retry: RetryClass) -> NextStep:
    """Decide after an error of this retry class."""
    if job.cancel_requested:
        return NextStep(state=JobState.CANCELLED, outcome=Outcome.CANCELLED)
    if retry is RetryClass.DROP:
        return NextStep(state=JobState.QUEUED, outcome=Outcome.INTERRUPTED, refunded=True)
    if retry is RetryClass.PAUSE:
        return NextStep(state=JobState.QUEUED, outcome=Outcome.RETRY, refunded=True)
    if retry is RetryClass.REFUND and job.refunds == 0:
        return NextStep(state=JobState.QUEUED, outcome=Outcome.RETRY, refunded=True, delay_s=REFUND_DELAY_S)
    if retry is RetryClass.LATER and job.attempt < job.max_attempts:
        return NextStep(state=JobState.QUEUED, outcome=Outcome.RETRY, delay_s=_later(job))
    return NextStep(state=JobState.FAILED, outcome=Outcome.FAILED)


def after_crash(job: Job) -> NextStep:
    """Decide after the worker died during this job."""
    if job.cancel_requested:
        return NextStep(state=JobState.CANCELLED, outcome=Outcome.CRASHED, code=CRASHED_CODE)
    if job.crashes + 1 >= MAX_CRASHES:
        return NextStep(state=JobState.FAILED, outcome=Outcome.CRASHED, code=CRASH_REPEATED_CODE)
    if job.attempt >= job.max_attempts:
        return NextStep(state=JobState.FAILED, outcome=Outcome.CRASHED, code=CRASHED_CODE)
    return NextStep(state=JobState.QUEUED, outcome=Outcome.CRASHED, code=CRASHED_CODE, delay_s=CRASH_DELAY_S)


def after_abandonment(job: Job, outcome: Outcome) -> NextStep:
    """Decide after the daemon died with this job running, or its lease expired."""
    if job.cancel_requested:
        return NextStep(state=JobState.CANCELLED, outcome=outcome, code=ABANDONED_CODE)
    if job.attempt >= job.max_attempts:
        return NextStep(state=JobState.FAILED, outcome=outcome, code=ABANDONED_CODE)
    return NextStep(state=JobState.QUEUED, outcome=outcome, code=ABANDONED_CODE)


def _later(job: Job) -> float:
    delay = LATER_DELAYS_S[min(job.attempt, len(LATER_DELAYS_S)) - 1]
    return delay * (1.0 + JITTER * random.Random(f"{job.public_id}:{job.claim_no}").random())

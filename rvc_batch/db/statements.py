"""The statements that are more than a lookup by key: the claim, the listings, and what `status` sums up.

Built in SQLAlchemy Core for SQLite and PostgreSQL alike. States are written as literals because SQLite uses a partial
index only for a condition it can see. What `status` asks is also kept as text in status_sql.py, written by
tools/compile_statements.py. Nothing here runs a statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from rvc_batch.db.schema import arrivals, attempts, deliveries, events, jobs, meta, stage_timings

Statement: TypeAlias = Any  # SQLAlchemy's own type spells out every column

ACTIVE_STATES = ("ingesting", "queued", "running")
WARM_PATIENCE_S = 600.0  # a job that waited longer goes before jobs whose voice is loaded


def in_state(state: str) -> sa.ColumnElement[bool]:
    """Return the condition that a job is in `state`, as a literal."""
    return jobs.c.state == sa.literal_column(f"'{state}'")


# One row by its number, or by its fence: running, by this worker, under this claim. What an UPDATE sets are the other
# parameters it is given. Built once, because building one takes several times as long as running it.
_FENCE = (
    jobs.c.id == sa.bindparam("of_job"),
    in_state("running"),
    jobs.c.worker_id == sa.bindparam("of_worker"),
    jobs.c.claim_no == sa.bindparam("of_claim"),
)
_THIS_ATTEMPT = (
    attempts.c.job_id == sa.bindparam("of_job"),
    attempts.c.claim_no == sa.bindparam("of_claim"),
    attempts.c.outcome.is_(None),
)
JOB: Statement = jobs.select().where(jobs.c.id == sa.bindparam("of_job"))
CHANGE_JOB: Statement = sa.update(jobs).where(jobs.c.id == sa.bindparam("of_job")).returning(*jobs.c)
FENCED: Statement = jobs.select().where(*_FENCE)
CHANGE_FENCED: Statement = sa.update(jobs).where(*_FENCE).returning(*jobs.c)
BEAT: Statement = sa.update(jobs).where(*_FENCE).returning(jobs.c.cancel_requested)
NEW_JOBS: Statement = jobs.insert().returning(jobs.c.id, sort_by_parameter_order=True)
NEW_ATTEMPT: Statement = attempts.insert()
END_ATTEMPT: Statement = sa.update(attempts).where(*_THIS_ATTEMPT).returning(attempts.c.id)
TIMINGS: Statement = stage_timings.insert()
JOURNAL: Statement = events.insert()
JOBS: Statement = jobs.select().where(jobs.c.id.in_(sa.bindparam("of_jobs", expanding=True))).order_by(jobs.c.id)
CHANGE_JOBS: Statement = (
    sa.update(jobs).where(jobs.c.id.in_(sa.bindparam("of_jobs", expanding=True))).returning(*jobs.c)
)
ACTIVE_BY_KEY: Statement = sa.select(jobs.c.dedupe_key, jobs.c.id).where(
    jobs.c.dedupe_key.in_(sa.bindparam("of_keys", expanding=True)), sa.or_(*map(in_state, ACTIVE_STATES))
)
BUDGET: Statement = sa.select(jobs.c.budget).where(jobs.c.id == sa.bindparam("of_job"))
AT_WORK: Statement = sa.select(jobs.c.public_id).where(sa.or_(*map(in_state, ACTIVE_STATES)))
OWNED_NAMES: Statement = sa.select(jobs.c.output_key).where(
    jobs.c.output_key.in_(sa.bindparam("of_names", expanding=True))
)


IN_TURN = (jobs.c.priority.desc(), jobs.c.id.asc())  # how queued jobs run when no voice is preferred
_WARM_TURN = sa.case(
    (jobs.c.queued_at <= sa.bindparam("of_overdue"), 0), (jobs.c.voice == sa.bindparam("of_voice"), 1), else_=2
)


def _claim(*order: sa.ColumnElement[Any]) -> Statement:
    """Take the first job that may run: one conditional UPDATE that returns the row, or nothing.

    What an earlier claim meant to publish stays: it may have got there, on a volume that is away just now.
    In this shape the row lock, which SQLite does not know, is dropped harmlessly; SELECT-then-UPDATE would claim twice.
    Parameters: of_time, worker_id, lease_until, started_at.
    """
    first = (
        sa.select(jobs.c.id)
        .where(in_state("queued"), jobs.c.run_after <= sa.bindparam("of_time"))
        .order_by(*order)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        sa.update(jobs)
        .where(jobs.c.id == first, in_state("queued"))
        .values(
            state="running",
            claim_no=jobs.c.claim_no + 1,
            attempt=jobs.c.attempt + 1,
            worker_id=sa.bindparam("worker_id"),
            lease_until=sa.bindparam("lease_until"),
            started_at=sa.bindparam("started_at"),
            stage=None,
            progress_done=0.0,
        )
        .returning(*jobs.c)
    )


CLAIM = _claim(*IN_TURN)
# Priority, then waited too long (queued before of_overdue), then voice loaded (of_voice), then age.
CLAIM_WARM = _claim(jobs.c.priority.desc(), _WARM_TURN.asc(), jobs.c.id.asc())


def listing(
    *, states: tuple[str, ...], voice: str | None, error_code: str | None, limit: int | None, offset: int
) -> Statement:
    """Select jobs, newest first; every filter that is empty lets all through."""
    found = sa.select(jobs).order_by(jobs.c.id.desc()).limit(limit).offset(offset)
    if states:
        found = found.where(jobs.c.state.in_(states))
    if voice is not None:
        found = found.where(jobs.c.voice == voice)
    if error_code is not None:
        found = found.where(jobs.c.error_code == error_code)
    return found


LINE = (
    jobs.c.id,
    jobs.c.public_id,
    jobs.c.state,
    jobs.c.source_name,
    jobs.c.voice,
    jobs.c.seconds_in,
    jobs.c.stage,
    jobs.c.progress_done,
    jobs.c.progress_total,
    jobs.c.attempt,
    jobs.c.max_attempts,
    jobs.c.cancel_requested,
    jobs.c.run_after,
    jobs.c.lease_until,
    jobs.c.started_at,
    jobs.c.finished_at,
    jobs.c.error_code,
    jobs.c.error_message,
    jobs.c.error_stage,
)


def running_lines() -> Statement:
    """Select what `status` shows of running jobs."""
    return sa.select(*LINE).where(in_state("running")).order_by(jobs.c.id)


def next_lines(now: float, limit: int) -> Statement:
    """Select what `status` shows of the jobs that run next."""
    return sa.select(*LINE).where(in_state("queued")).order_by((jobs.c.run_after > now).asc(), *IN_TURN).limit(limit)


def failed_lines(limit: int) -> Statement:
    """Select what `status` shows of the latest failures."""
    return sa.select(*LINE).where(in_state("failed")).order_by(jobs.c.finished_at.desc()).limit(limit)


def counts() -> Statement:
    """Count jobs by state."""
    return sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)


def unfinished_audio() -> Statement:
    """Sum up per voice: jobs, those of unknown length, seconds of audio not yet rendered."""
    left = sa.case((in_state("running"), jobs.c.seconds_in - jobs.c.progress_done), else_=jobs.c.seconds_in)
    return (
        sa.select(
            jobs.c.voice,
            sa.func.count().label("jobs"),
            sa.func.sum(sa.case((jobs.c.seconds_in.is_(None), 1), else_=0)).label("unknown"),
            sa.func.sum(sa.case((left > 0, left), else_=0.0)).label("seconds"),
        )
        .where(jobs.c.state.in_([sa.literal_column("'queued'"), sa.literal_column("'running'")]))
        .group_by(jobs.c.voice)
    )


def recent_speeds(voice: str, limit: int) -> Statement:
    """Select seconds of audio per wall second of the latest jobs of a voice that are done."""
    return (
        sa.select((jobs.c.seconds_in / jobs.c.wall_seconds).label("speed"))
        .where(in_state("done"), jobs.c.voice == voice, jobs.c.wall_seconds > 0, jobs.c.seconds_in.is_not(None))
        .order_by(jobs.c.finished_at.desc())
        .limit(limit)
    )


def finished_since(since: float) -> Statement:
    """Select state, wait and speed of what ended since then."""
    return sa.select(
        jobs.c.state,
        (jobs.c.started_at - jobs.c.created_at).label("wait"),
        sa.case((jobs.c.wall_seconds > 0, jobs.c.seconds_in / jobs.c.wall_seconds)).label("speed"),
    ).where(jobs.c.finished_at >= since)


def stage_seconds_since(since: float) -> Statement:
    """Sum up the seconds per stage of attempts that ended since then."""
    return (
        sa.select(stage_timings.c.stage, sa.func.sum(stage_timings.c.seconds))
        .join(attempts, attempts.c.id == stage_timings.c.attempt_id)
        .where(attempts.c.ended_at >= since)
        .group_by(stage_timings.c.stage)
    )


def ended_between(since: float, until: float) -> Statement:
    """Select what `stats` sums up of jobs that ended in this stretch of time."""
    return sa.select(
        jobs.c.state,
        jobs.c.voice,
        jobs.c.finished_at,
        jobs.c.seconds_in,
        jobs.c.wall_seconds,
        (jobs.c.started_at - jobs.c.created_at).label("wait"),
        jobs.c.error_code.label("code"),
    ).where(jobs.c.finished_at >= since, jobs.c.finished_at < until)


def timings_between(since: float, until: float) -> Statement:
    """Select the stage timings of attempts that ended in this stretch of time."""
    return (
        sa.select(attempts.c.ended_at, stage_timings.c.stage, stage_timings.c.seconds)
        .join(attempts, attempts.c.id == stage_timings.c.attempt_id)
        .where(attempts.c.ended_at >= since, attempts.c.ended_at < until)
        .order_by(stage_timings.c.attempt_id, stage_timings.c.seq)
    )


def queue_steps_since(since: float) -> Statement:
    """Select when the queue grew (+1) or shrank (-1) by a job."""
    into, out = events.c.to_state == "queued", events.c.from_state == "queued"
    step = sa.case((into, 1), else_=0) - sa.case((out, 1), else_=0)
    return (
        sa.select(events.c.at, step.label("step"))
        .where(events.c.at >= since, step != 0)
        .order_by(events.c.at, events.c.id)
    )


def queued_count() -> Statement:
    """Count queued jobs."""
    return sa.select(sa.func.count()).select_from(jobs).where(in_state("queued"))


def oldest_queued() -> Statement:
    """Select when the job was queued that has waited longest."""
    return sa.select(sa.func.min(jobs.c.queued_at)).where(in_state("queued"))


def last_success() -> Statement:
    """Select when a job was last done."""
    return sa.select(sa.func.max(jobs.c.finished_at)).where(in_state("done"))


def failed_attempts() -> Statement:
    """Count attempts by error code."""
    return (
        sa.select(attempts.c.error_code, sa.func.count())
        .where(attempts.c.error_code.is_not(None))
        .group_by(attempts.c.error_code)
        .order_by(attempts.c.error_code)
    )


def work_per_voice() -> Statement:
    """Sum up seconds of audio and of work of the jobs that are done, per voice."""
    return (
        sa.select(jobs.c.voice, sa.func.sum(jobs.c.seconds_in), sa.func.sum(jobs.c.wall_seconds))
        .where(in_state("done"), jobs.c.wall_seconds > 0)
        .group_by(jobs.c.voice)
        .order_by(jobs.c.voice)
    )


def stage_histogram(limits: Sequence[float]) -> Statement:
    """Count and sum up the seconds per voice and stage of done jobs, and count those within each limit."""
    seconds = stage_timings.c.seconds
    within = (sa.func.sum(sa.case((seconds <= limit, 1), else_=0)) for limit in limits)
    return (
        sa.select(jobs.c.voice, stage_timings.c.stage, sa.func.count(), sa.func.sum(seconds), *within)
        .join(attempts, attempts.c.id == stage_timings.c.attempt_id)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.outcome == "done")
        .group_by(jobs.c.voice, stage_timings.c.stage)
        .order_by(jobs.c.voice, stage_timings.c.stage)
    )


def meta_value(key: str) -> Statement:
    """Select what is stored under this key."""
    return sa.select(meta.c.value).where(meta.c.key == key)


META: Statement = sa.select(meta.c.value).where(meta.c.key == sa.bindparam("of_key"))


def hooks_behind() -> Statement:
    """Count per hook what it was not told yet and what was given up, with the latest error."""
    given_up = sa.func.sum(sa.case((deliveries.c.dropped_at.is_not(None), 1), else_=0))
    return (
        sa.select(
            deliveries.c.hook,
            sa.func.count().label("events"),
            given_up.label("given_up"),
            sa.func.max(deliveries.c.last_error).label("error"),
        )
        .where(deliveries.c.tries > 0)
        .group_by(deliveries.c.hook)
        .order_by(deliveries.c.hook)
    )


def all_arrivals() -> Statement:
    """Select the files of the inbox that are no jobs (yet), in the order of their paths."""
    return sa.select(arrivals).order_by(arrivals.c.path)


def revision() -> Statement:
    """Select the revision of the tables, from the table that is Alembic's own."""
    return sa.select(sa.column("version_num")).select_from(sa.table("alembic_version"))

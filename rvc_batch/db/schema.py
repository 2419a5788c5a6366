"""The tables of the job database, with their invariants as CHECK constraints and partial indexes.

SQLAlchemy Core, in types that SQLite and PostgreSQL share. Times are UTC epoch seconds, names are file-system bytes.
Nothing here runs a statement. The Alembic scripts build the same tables; a test compares the two.

The condition of a partial index is written down for SQLite only, because naming PostgreSQL here would load its whole
dialect into every command; the scripts, which are what creates tables, name both.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
metadata = sa.MetaData(naming_convention=NAMES)

BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows only in an INTEGER key


class Unsigned64(TypeDecorator[int]):
    """Store 0…2⁶⁴−1 (inode and device numbers) in the signed 64-bit integer both databases have."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        """Fold the upper half onto the negative numbers."""
        return value if value is None or value < 1 << 63 else value - (1 << 64)

    def process_result_value(self, value: int | None, dialect: Any) -> int | None:
        """Undo `process_bind_param`."""
        return value if value is None or value >= 0 else value + (1 << 64)


class Real(TypeDecorator[float]):
    """A float that comes back as one: SQLite's RETURNING gives 10 for a stored 10.0."""

    impl = sa.Double
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Any) -> float | None:
        """Undo SQLite's shortcut."""
        return None if value is None else float(value)


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("public_id", sa.String(12), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("source_name", sa.Text, nullable=False),
    sa.Column("source_rel", sa.LargeBinary, nullable=False),
    sa.Column("source_size", sa.BigInteger, nullable=False),
    sa.Column("source_mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("source_device", Unsigned64, nullable=False),
    sa.Column("source_inode", Unsigned64, nullable=False),
    sa.Column("content_sha256", sa.String(64), nullable=False),
    sa.Column("voice", sa.Text, nullable=False),
    sa.Column("voice_sha256", sa.String(64)),
    sa.Column("settings_json", sa.Text, nullable=False),
    sa.Column("settings_hash", sa.String(16), nullable=False),
    sa.Column("dedupe_key", sa.String(64), nullable=False),
    sa.Column("duplicate_of", BigId, sa.ForeignKey("jobs.id")),
    sa.Column("output_rel", sa.LargeBinary, nullable=False),
    sa.Column("output_key", sa.LargeBinary),  # set while the job owns its output name
    sa.Column("output_sha256", sa.String(64)),
    sa.Column("output_size", sa.BigInteger),
    sa.Column("seconds_in", Real),
    sa.Column("claim_no", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("budget", sa.Integer, nullable=False),  # attempts granted by submit, and again by each retry
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("refunds", sa.Integer, nullable=False),  # given back because the voice was at fault
    sa.Column("run_after", Real, nullable=False),
    sa.Column("worker_id", sa.Text),
    sa.Column("lease_until", Real),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("stage", sa.Text),
    sa.Column("progress_done", Real, nullable=False),
    sa.Column("progress_total", Real, nullable=False),
    sa.Column("created_at", Real, nullable=False),
    sa.Column("queued_at", Real),
    sa.Column("started_at", Real),
    sa.Column("finished_at", Real),
    sa.Column("wall_seconds", Real),
    sa.Column("error_code", sa.Text),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("error_stage", sa.Text),
    sa.Column("error_traceback", sa.Text),
    sa.Column("warnings_json", sa.Text, nullable=False),
    sa.CheckConstraint(
        "state IN ('ingesting', 'queued', 'running', 'done', 'failed', 'cancelled', 'duplicate')", name="state_known"
    ),
    sa.CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name="running_has_worker"),
    sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="running_has_lease"),
    sa.CheckConstraint(
        "(state IN ('done', 'failed', 'cancelled', 'duplicate')) = (finished_at IS NOT NULL)",
        name="terminal_is_finished",
    ),
    sa.CheckConstraint("attempt >= 0 AND attempt <= max_attempts AND attempt <= claim_no", name="attempts_in_budget"),
    sa.CheckConstraint("state <> 'queued' OR attempt < max_attempts", name="queued_has_attempts_left"),
    sa.CheckConstraint(
        "state <> 'done' OR (output_sha256 IS NOT NULL AND output_size IS NOT NULL)", name="done_has_output"
    ),
    sa.CheckConstraint("(state = 'duplicate') = (duplicate_of IS NOT NULL)", name="duplicate_has_first"),
    sa.CheckConstraint(
        "(state IN ('ingesting', 'queued', 'running')) = (output_key IS NOT NULL)", name="active_owns_output_name"
    ),
    sqlite_autoincrement=True,
)

sa.Index("ux_jobs_public_id", jobs.c.public_id, unique=True)
_queued = sa.text("state = 'queued'")
sa.Index("ix_jobs_claim", jobs.c.priority.desc(), jobs.c.id, sqlite_where=_queued)
_running = sa.text("state = 'running'")
sa.Index("ix_jobs_lease", jobs.c.lease_until, sqlite_where=_running)
_active = sa.text("state IN ('ingesting', 'queued', 'running')")
sa.Index("ux_jobs_active_dedupe_key", jobs.c.dedupe_key, unique=True, sqlite_where=_active)
_named = sa.text("output_key IS NOT NULL")
sa.Index("ux_jobs_output_key", jobs.c.output_key, unique=True, sqlite_where=_named)
# State comes second: as the first column it would draw the claim away from its own index.
sa.Index("ix_jobs_finished_at", jobs.c.finished_at, jobs.c.state)
_done = sa.text("state = 'done'")
sa.Index("ix_jobs_done_by_voice", jobs.c.voice, jobs.c.finished_at, sqlite_where=_done)
sa.Index("ix_jobs_source_rel", jobs.c.source_rel)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("job_id", BigId, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("claim_no", sa.Integer, nullable=False),
    sa.Column("worker_id", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", Real, nullable=False),
    sa.Column("ended_at", Real),
    sa.Column("outcome", sa.String(12)),
    sa.Column("signal", sa.Integer),
    sa.Column("error_code", sa.Text),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("error_stage", sa.Text),
    sa.Column("error_traceback", sa.Text),
    sa.Column("peak_rss", sa.BigInteger),
    sa.Column("report_json", sa.Text),  # the ConversionReport of an attempt that is done
    sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended_has_outcome"),
    sa.CheckConstraint(
        "outcome IN ('done', 'retry', 'failed', 'crashed', 'fenced', 'interrupted', 'cancelled')", name="outcome_known"
    ),
)
sa.Index("ux_attempts_job_claim", attempts.c.job_id, attempts.c.claim_no, unique=True)
sa.Index("ix_attempts_ended_at", attempts.c.ended_at)

stage_timings = sa.Table(
    "stage_timings",
    metadata,
    sa.Column("attempt_id", BigId, sa.ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("seconds", Real, nullable=False),
    sa.CheckConstraint("seconds >= 0", name="seconds_not_negative"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", Real, nullable=False),
    sa.Column("heartbeat_at", Real, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("job_id", BigId),
    sa.Column("backend", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("rss", sa.BigInteger),
    sa.Column("warm_voices_json", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
)

arrivals = sa.Table(
    "arrivals",
    metadata,
    sa.Column("path", sa.LargeBinary, primary_key=True),
    sa.Column("first_seen", Real, nullable=False),
    sa.Column("last_change", Real, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("verdict", sa.String(12), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.CheckConstraint("verdict IN ('settling', 'incomplete', 'ignored', 'unreadable')", name="verdict_known"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("job_id", BigId, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("at", Real, nullable=False),
    sa.Column("from_state", sa.String(12)),
    sa.Column("to_state", sa.String(12), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
sa.Index("ix_events_job_id", events.c.job_id, events.c.id)

deliveries = sa.Table(  # what hooks are to be told (jobs/notices.py)
    "deliveries",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("hook", sa.Text, nullable=False),
    sa.Column("event", sa.String(12), nullable=False),
    sa.Column("at", Real, nullable=False),
    sa.Column("body_json", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_try_at", Real, nullable=False),
    sa.Column("dropped_at", Real),  # when it was given up
    sa.Column("last_error", sa.Text, nullable=False),
    sa.CheckConstraint("event IN ('done', 'failed', 'paused', 'idle')", name="event_known"),
)
sa.Index("ix_deliveries_hook", deliveries.c.hook, deliveries.c.id)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

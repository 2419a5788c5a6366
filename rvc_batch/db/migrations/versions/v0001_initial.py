"""The first schema: jobs, attempts, stage timings, workers, arrivals, events, meta.

What a column means stands in rvc_batch/db/schema.py. This script never changes once released.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables and indexes."""
    op.create_table(
        "arrivals",
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("last_change", sa.Double(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('settling', 'incomplete', 'ignored', 'unreadable')", name=op.f("ck_arrivals_verdict_known")
        ),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_arrivals")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("public_id", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("source_rel", sa.LargeBinary(), nullable=False),
        sa.Column("source_size", sa.BigInteger(), nullable=False),
        sa.Column("source_mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("source_device", sa.BigInteger(), nullable=False),
        sa.Column("source_inode", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("voice", sa.Text(), nullable=False),
        sa.Column("voice_sha256", sa.String(length=64)),
        sa.Column("settings_json", sa.Text(), nullable=False),
        sa.Column("settings_hash", sa.String(length=16), nullable=False),
        sa.Column("dedupe_key", sa.String(length=64), nullable=False),
        sa.Column("duplicate_of", BIG_ID),
        sa.Column("output_rel", sa.LargeBinary(), nullable=False),
        sa.Column("output_key", sa.LargeBinary()),
        sa.Column("output_sha256", sa.String(length=64)),
        sa.Column("output_size", sa.BigInteger()),
        sa.Column("seconds_in", sa.Double()),
        sa.Column("claim_no", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("budget", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("refunds", sa.Integer(), nullable=False),
        sa.Column("run_after", sa.Double(), nullable=False),
        sa.Column("worker_id", sa.Text()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("stage", sa.Text()),
        sa.Column("progress_done", sa.Double(), nullable=False),
        sa.Column("progress_total", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("queued_at", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("wall_seconds", sa.Double()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_stage", sa.Text()),
        sa.Column("error_traceback", sa.Text()),
        sa.Column("warnings_json", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state = 'duplicate') = (duplicate_of IS NOT NULL)", name=op.f("ck_jobs_duplicate_has_first")
        ),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_jobs_running_has_lease")),
        sa.CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name=op.f("ck_jobs_running_has_worker")),
        sa.CheckConstraint(
            "(state IN ('done', 'failed', 'cancelled', 'duplicate')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_terminal_is_finished"),
        ),
        sa.CheckConstraint(
            "(state IN ('ingesting', 'queued', 'running')) = (output_key IS NOT NULL)",
            name=op.f("ck_jobs_active_owns_output_name"),
        ),
        sa.CheckConstraint(
            "state <> 'done' OR (output_sha256 IS NOT NULL AND output_size IS NOT NULL)",
            name=op.f("ck_jobs_done_has_output"),
        ),
        sa.CheckConstraint(
            "state <> 'queued' OR attempt < max_attempts", name=op.f("ck_jobs_queued_has_attempts_left")
        ),
        sa.CheckConstraint(
            "state IN ('ingesting', 'queued', 'running', 'done', 'failed', 'cancelled', 'duplicate')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.CheckConstraint(
            "attempt >= 0 AND attempt <= max_attempts AND attempt <= claim_no", name=op.f("ck_jobs_attempts_in_budget")
        ),
        sa.ForeignKeyConstraint(["duplicate_of"], ["jobs.id"], name=op.f("fk_jobs_duplicate_of")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        [sa.literal_column("priority DESC"), "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_jobs_done_by_voice",
        "jobs",
        ["voice", "finished_at"],
        unique=False,
        sqlite_where=sa.text("state = 'done'"),
        postgresql_where=sa.text("state = 'done'"),
    )
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at", "state"], unique=False)
    op.create_index(
        "ix_jobs_lease",
        "jobs",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index("ix_jobs_source_rel", "jobs", ["source_rel"], unique=False)
    op.create_index(
        "ux_jobs_active_dedupe_key",
        "jobs",
        ["dedupe_key"],
        unique=True,
        sqlite_where=sa.text("state IN ('ingesting', 'queued', 'running')"),
        postgresql_where=sa.text("state IN ('ingesting', 'queued', 'running')"),
    )
    op.create_index(
        "ux_jobs_output_key",
        "jobs",
        ["output_key"],
        unique=True,
        sqlite_where=sa.text("output_key IS NOT NULL"),
        postgresql_where=sa.text("output_key IS NOT NULL"),
    )
    op.create_index("ux_jobs_public_id", "jobs", ["public_id"], unique=True)
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("job_id", BIG_ID),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("rss", sa.BigInteger()),
        sa.Column("warm_voices_json", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("job_id", BIG_ID, nullable=False),
        sa.Column("claim_no", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("outcome", sa.String(length=12)),
        sa.Column("signal", sa.Integer()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_stage", sa.Text()),
        sa.Column("error_traceback", sa.Text()),
        sa.Column("peak_rss", sa.BigInteger()),
        sa.Column("report_json", sa.Text()),
        sa.CheckConstraint(
            "outcome IN ('done', 'retry', 'failed', 'crashed', 'fenced', 'interrupted', 'cancelled')",
            name=op.f("ck_attempts_outcome_known"),
        ),
        sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_attempts_ended_has_outcome")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index("ix_attempts_ended_at", "attempts", ["ended_at"], unique=False)
    op.create_index("ux_attempts_job_claim", "attempts", ["job_id", "claim_no"], unique=True)
    op.create_table(
        "events",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("job_id", BIG_ID, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("from_state", sa.String(length=12)),
        sa.Column("to_state", sa.String(length=12), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_job_id", "events", ["job_id", "id"], unique=False)
    op.create_table(
        "stage_timings",
        sa.Column("attempt_id", BIG_ID, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.CheckConstraint("seconds >= 0", name=op.f("ck_stage_timings_seconds_not_negative")),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_stage_timings_attempt_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", "seq", name=op.f("pk_stage_timings")),
    )

"""Rows of jobs, attempts and events to records and back. No SQL."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.jobs.models import (
    Attempt,
    Event,
    Job,
    JobError,
    JobState,
    NewJob,
    Outcome,
)
from rvc_batch.jobs.output_names import output_key

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping

    Row: TypeAlias = RowMapping | dict[str, Any]  # by the names of columns

_ERROR_FIELDS = ("code", "type", "message", "stage", "traceback")
_SAME_NAME = (
    "id",
    "public_id",
    "priority",
    "source_name",
    "source_rel",
    "source_size",
    "source_mtime_ns",
    "source_device",
    "source_inode",
    "content_sha256",
    "voice",
    "voice_sha256",
    "dedupe_key",
    "output_rel",
    "output_sha256",
    "output_size",
    "seconds_in",
    "claim_no",
    "attempt",
    "max_attempts",
    "crashes",
    "refunds",
    "run_after",
    "worker_id",
    "lease_until",
    "cancel_requested",
    "stage",
    "progress_done",
    "progress_total",
    "created_at",
    "queued_at",
    "started_at",
    "finished_at",
    "wall_seconds",
    "duplicate_of",
)


def dedupe_key(new: NewJob, settings_hash: str) -> str:
    """Return what is equal for the same content, voice, settings and wanted output name.

    The name is part of it: the same audio under two names is two results the user asked for.
    """
    parts = (new.content_sha256, new.voice, settings_hash, output_key(new.output_rel).hex())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def values_of(new: NewJob) -> dict[str, Any]:
    """Return the columns a new job fills by itself."""
    settings_hash = new.settings.digest()
    return {
        "priority": new.priority,
        "source_name": new.source_name,
        "source_rel": new.source_rel,
        "source_size": new.size,
        "source_mtime_ns": new.mtime_ns,
        "source_device": new.device,
        "source_inode": new.inode,
        "content_sha256": new.content_sha256,
        "voice": new.voice,
        "settings_json": new.settings.to_json(),
        "settings_hash": settings_hash,
        "dedupe_key": dedupe_key(new, settings_hash),
        "seconds_in": new.seconds_in,
        "max_attempts": new.max_attempts,
        "budget": new.max_attempts,
        "claim_no": 0,
        "attempt": 0,
        "crashes": 0,
        "refunds": 0,
        "cancel_requested": False,
        "progress_done": 0.0,
        "progress_total": new.seconds_in or 0.0,
        "warnings_json": "[]",
    }


def error_values(error: JobError | None) -> dict[str, Any]:
    """Return the error columns; all empty without an error."""
    return {f"error_{name}": None if error is None else getattr(error, name) for name in _ERROR_FIELDS}


def error_of(row: Row) -> JobError | None:
    """Return the error of a job or attempt row."""
    if row["error_code"] is None:
        return None
    return JobError(**{name: row[f"error_{name}"] for name in _ERROR_FIELDS})


def job_of(row: Row) -> Job:
    """Return a row of `jobs` as a record."""
    return Job(
        state=JobState(row["state"]),
        settings=_settings_of(row["settings_json"]),
        error=error_of(row),
        warnings=tuple(json.loads(row["warnings_json"])),
        **{name: row[name] for name in _SAME_NAME},
    )


@lru_cache(maxsize=256)
def _settings_of(text: str) -> ConversionSettings:
    return ConversionSettings.from_json(text)


def attempt_of(row: Row, stage_seconds: dict[str, float]) -> Attempt:
    """Return a row of `attempts` with its stage timings as a record."""
    return Attempt(
        job_id=row["job_id"],
        claim_no=row["claim_no"],
        worker_id=row["worker_id"],
        host=row["host"],
        pid=row["pid"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        signal=row["signal"],
        error=error_of(row),
        peak_rss=row["peak_rss"],
        stage_seconds=stage_seconds,
        report_json=row["report_json"],
    )


def event_of(row: Row) -> Event:
    """Return a row of `events` as a record."""
    return Event(
        job_id=row["job_id"],
        at=row["at"],
        from_state=None if row["from_state"] is None else JobState(row["from_state"]),
        to_state=JobState(row["to_state"]),
        actor=row["actor"],
        note=row["note"],
    )

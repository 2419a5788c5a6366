"""The job record: states, transitions, and frozen dataclasses for rows. No SQL, no files, no clock.

ingesting ──▶ queued ◀── (own stop, environment fault: attempt refunded; retry: later) ──┐
    │           │ claim                                                                │
    │           ▼                                                                      │
    │        running ──────────────────────────────────────────────────────────────────┘
    ▼           ├──▶ done
 failed ◀───────┤
duplicate       └──▶ cancelled
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rvc_batch.engine.settings import ConversionSettings


class JobState(StrEnum):
    """Where a job is. A retry is `queued` with `run_after` in the future."""

    INGESTING = "ingesting"  # the row exists, the file is on its way into work/
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"


TERMINAL = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.DUPLICATE})
ACTIVE = frozenset({JobState.INGESTING, JobState.QUEUED, JobState.RUNNING})

TRANSITIONS: frozenset[tuple[JobState, JobState]] = frozenset(
    {
        (JobState.INGESTING, JobState.QUEUED),
        (JobState.INGESTING, JobState.FAILED),
        (JobState.INGESTING, JobState.DUPLICATE),
        (JobState.INGESTING, JobState.CANCELLED),
        (JobState.QUEUED, JobState.RUNNING),
        (JobState.QUEUED, JobState.CANCELLED),
        (JobState.QUEUED, JobState.FAILED),
        (JobState.RUNNING, JobState.QUEUED),
        (JobState.RUNNING, JobState.DONE),
        (JobState.RUNNING, JobState.FAILED),
        (JobState.RUNNING, JobState.CANCELLED),
        (JobState.FAILED, JobState.QUEUED),
        (JobState.CANCELLED, JobState.QUEUED),
    }
)


class Outcome(StrEnum):
    """How one attempt ended."""

    DONE = "done"
    RETRY = "retry"  # failed, will be tried again
    FAILED = "failed"
    CRASHED = "crashed"  # the worker died
    FENCED = "fenced"  # finished after losing its lease: nothing was written
    INTERRUPTED = "interrupted"  # we stopped it ourselves; not counted
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What the watcher or `add` knows of a file it accepts."""

    source_name: str  # for display; undecodable bytes replaced
    source_rel: bytes  # path below the inbox, file-system bytes
    size: int
    mtime_ns: int
    device: int
    inode: int
    content_sha256: str
    voice: str
    settings: ConversionSettings
    output_rel: bytes  # wanted path below the outbox, before " (2)" is added
    priority: int = 0
    max_attempts: int = 3
    seconds_in: float | None = None


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job or attempt failed."""

    code: str
    message: str
    stage: str
    type: str = ""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of the job table. Times are UTC epoch seconds."""

    id: int
    public_id: str
    state: JobState
    priority: int
    source_name: str
    source_rel: bytes
    source_size: int
    content_sha256: str
    voice: str
    settings: ConversionSettings
    output_rel: bytes
    output_sha256: str | None
    output_size: int | None
    seconds_in: float | None
    claim_no: int  # fencing token; only ever grows
    attempt: int
    max_attempts: int
    crashes: int
    run_after: float
    worker_id: str | None
    lease_until: float | None
    cancel_requested: bool
    stage: str | None
    progress_done: float
    progress_total: float
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: JobError | None
    warnings: tuple[str, ...]
    duplicate_of: int | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One claim of a job."""

    job_id: int
    claim_no: int
    worker_id: str
    pid: int
    started_at: float
    ended_at: float | None
    outcome: Outcome | None
    signal: int | None
    error: JobError | None
    peak_rss: int | None
    stage_seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of the journal."""

    job_id: int
    at: float
    from_state: JobState | None
    to_state: JobState
    actor: str
    note: str

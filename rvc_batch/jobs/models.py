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

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# Codes that are recorded on a job but never raised.
CRASHED_CODE = "E_CRASHED"  # the worker died during this job; one more try
CRASH_REPEATED_CODE = "E_CRASH_REPEATED"  # it died again
ABANDONED_CODE = "E_ABANDONED"  # the daemon or its heartbeat ended without an outcome


class Outcome(StrEnum):
    """How one attempt ended."""

    DONE = "done"
    RETRY = "retry"  # failed, will be tried again
    FAILED = "failed"
    CRASHED = "crashed"  # the worker died
    FENCED = "fenced"  # its lease expired: whatever it finishes later is not recorded
    INTERRUPTED = "interrupted"  # we stopped it ourselves; not counted
    CANCELLED = "cancelled"


class ArrivalVerdict(StrEnum):
    """Why a file in the inbox is not a job yet."""

    SETTLING = "settling"
    INCOMPLETE = "incomplete"
    IGNORED = "ignored"
    UNREADABLE = "unreadable"


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
    public_id: str  # short and random, for file names and logs
    state: JobState
    priority: int  # greater runs first
    source_name: str
    source_rel: bytes
    source_size: int
    source_mtime_ns: int
    source_device: int
    source_inode: int
    content_sha256: str
    voice: str
    voice_sha256: str | None  # of the voice that rendered it; set when done
    settings: ConversionSettings
    dedupe_key: str
    output_rel: bytes
    output_sha256: str | None  # the intent: recorded before publishing
    output_size: int | None
    seconds_in: float | None
    claim_no: int  # fencing token; only ever grows
    attempt: int  # attempts used; refunds take one off
    max_attempts: int
    crashes: int  # since the last retry by hand
    refunds: int  # attempts given back because the voice was at fault, since then
    run_after: float
    worker_id: str | None
    lease_until: float | None
    cancel_requested: bool
    stage: str | None
    progress_done: float  # seconds of audio
    progress_total: float
    created_at: float
    queued_at: float | None
    started_at: float | None  # of the latest claim
    finished_at: float | None
    wall_seconds: float | None  # of the attempt that is done
    error: JobError | None  # of the last failure; none once done
    warnings: tuple[str, ...]
    duplicate_of: int | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One claim of a job."""

    job_id: int
    claim_no: int
    worker_id: str
    host: str
    pid: int
    started_at: float
    ended_at: float | None
    outcome: Outcome | None  # none while it runs
    signal: int | None
    error: JobError | None
    peak_rss: int | None  # bytes
    stage_seconds: dict[str, float]
    report_json: str | None  # the ConversionReport, once done


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of the journal; equal states mark a note (cancel asked for, output renamed)."""

    job_id: int
    at: float
    from_state: JobState | None
    to_state: JobState
    actor: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a heartbeat learns."""

    alive: bool  # False: the lease is lost, drop the work and write nothing
    cancel_requested: bool


@dataclass(frozen=True, kw_only=True)
class PauseState:
    """Whether jobs may be claimed. `until` is infinite when a person paused the queue."""

    paused: bool
    reason: str = ""
    code: str = ""  # of the environment fault; empty when a person paused the queue
    since: float | None = None
    until: float = math.inf  # afterwards one job is tried again


NOT_PAUSED = PauseState(paused=False)


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """One worker process, by a random id and never by host name."""

    id: str
    host: str
    pid: int
    started_at: float
    heartbeat_at: float
    state: str
    job_id: int | None
    backend: str
    device: str
    rss: int | None  # bytes
    warm_voices: tuple[str, ...]
    version: str


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One file of the inbox that is not a job (yet), and why."""

    path: bytes  # below the inbox, file-system bytes
    first_seen: float
    last_change: float
    size: int
    verdict: ArrivalVerdict
    reason: str

"""What `status` asks of the database: the present, the backlog and the last day, read as one consistent view.

Only the columns that are shown are read, so that ten thousand jobs are summed up in milliseconds, and SQLAlchemy is not
loaded, which takes ten times as long (docs/decisions/0007-status-without-sqlalchemy.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rvc_batch.db import status_sql
from rvc_batch.db.snapshot import Snapshot
from rvc_batch.jobs.box_records import DRAIN_KEY, PAUSE_KEY, VERSION_KEY, arrival_of, pause_of
from rvc_batch.jobs.models import Arrival, JobState, PauseState

DAY_S = 86_400.0
SPEED_SAMPLES = 20  # latest jobs of a voice
SHOWN_NEXT = 3
SHOWN_FAILED = 5


@dataclass(frozen=True)
class JobLine:
    """What `status` shows of one job; times are UTC epoch seconds, lengths seconds of audio."""

    id: int
    public_id: str
    state: str
    source_name: str
    voice: str
    seconds_in: float | None
    stage: str | None
    progress_done: float
    progress_total: float
    attempt: int
    max_attempts: int
    cancel_requested: bool
    run_after: float
    lease_until: float | None
    started_at: float | None
    finished_at: float | None
    error_code: str | None
    error_message: str | None
    error_stage: str | None


@dataclass(frozen=True)
class Backlog:
    """What is queued and running for one voice, and how fast that voice has been."""

    voice: str
    jobs: int
    unknown: int  # jobs whose length is not known yet
    seconds: float  # of audio still to render, of the others
    speeds: tuple[float, ...]  # audio seconds per wall second, latest first


@dataclass(frozen=True)
class HookBehind:
    """A hook that failed: how many events it was not told, and how many of those were given up."""

    hook: str
    events: int
    given_up: int
    error: str


@dataclass(frozen=True)
class Day:
    """What ended in the last 24 hours."""

    done: int
    failed: int
    speeds: tuple[float, ...]
    waits: tuple[float, ...]  # seconds from arrival to the start of the successful attempt
    stage_seconds: dict[str, float]


@dataclass(frozen=True)
class Overview:
    """One consistent view of the database."""

    schema: str
    counts: dict[JobState, int]
    running: tuple[JobLine, ...]
    next: tuple[JobLine, ...]
    failed: tuple[JobLine, ...]
    backlog: tuple[Backlog, ...]
    day: Day

    @property
    def more_queued(self) -> int:
        """Queued jobs beyond those in `next`."""
        return self.counts[JobState.QUEUED] - len(self.next)

    @property
    def more_failed(self) -> int:
        """Failed jobs beyond those in `failed`."""
        return self.counts[JobState.FAILED] - len(self.failed)


def read_overview(view: Snapshot, now: float) -> Overview:
    """Read jobs, backlog and the last day."""
    found = _pairs(view, status_sql.COUNTS)
    return Overview(
        schema=read_schema(view),
        counts={state: found.get(str(state), 0) for state in JobState},
        running=_lines(view, status_sql.RUNNING_LINES),
        next=_lines(view, status_sql.NEXT_LINES, now=now, limit=SHOWN_NEXT),
        failed=_lines(view, status_sql.FAILED_LINES, limit=SHOWN_FAILED),
        backlog=tuple(
            Backlog(row["voice"], row["jobs"], row["unknown"], float(row["seconds"]), _speeds(view, row["voice"]))
            for row in view.rows(status_sql.UNFINISHED_AUDIO)
        ),
        day=_day(view, now - DAY_S),
    )


def read_pause(view: Snapshot, now: float) -> PauseState:
    """Read whether jobs may be claimed now."""
    return pause_of(view.value(status_sql.META_VALUE, key=PAUSE_KEY), now)


def read_is_draining(view: Snapshot) -> bool:
    """Read whether files of the inbox are left there until `resume`."""
    return view.value(status_sql.META_VALUE, key=DRAIN_KEY) is not None


def read_hooks_behind(view: Snapshot) -> tuple[HookBehind, ...]:
    """Read which hooks did not take what they were told."""
    return tuple(HookBehind(**dict(row)) for row in view.rows(status_sql.HOOKS_BEHIND))


def read_arrivals(view: Snapshot) -> tuple[Arrival, ...]:
    """Read which files of the inbox are no jobs (yet)."""
    return tuple(arrival_of(dict(row)) for row in view.rows(status_sql.ALL_ARRIVALS))


def read_schema(view: Snapshot) -> str:
    """Read which tables there are."""
    return str(view.value(status_sql.REVISION) or "none")


def read_version(view: Snapshot) -> str:
    """Read which version of rvc-batch made the tables."""
    return str(view.value(status_sql.META_VALUE, key=VERSION_KEY))


def _pairs(view: Snapshot, statement: str, **values: float) -> dict[str, Any]:
    return {row[0]: row[1] for row in view.rows(statement, **values)}


def _lines(view: Snapshot, statement: str, **values: float) -> tuple[JobLine, ...]:
    rows = (dict(row) for row in view.rows(statement, **values))
    return tuple(JobLine(**row | {"cancel_requested": bool(row["cancel_requested"])}) for row in rows)


def _speeds(view: Snapshot, voice: str) -> tuple[float, ...]:
    rows = view.rows(status_sql.RECENT_SPEEDS, voice=voice, limit=SPEED_SAMPLES)
    return tuple(float(row["speed"]) for row in rows)


def _day(view: Snapshot, since: float) -> Day:
    ended = view.rows(status_sql.FINISHED_SINCE, since=since)
    done = [row for row in ended if row["state"] == JobState.DONE]
    return Day(
        done=len(done),
        failed=sum(row["state"] == JobState.FAILED for row in ended),
        speeds=tuple(float(row["speed"]) for row in done if row["speed"] is not None),
        waits=tuple(max(float(row["wait"]), 0.0) for row in done if row["wait"] is not None),
        stage_seconds=_pairs(view, status_sql.STAGE_SECONDS_SINCE, since=since),
    )

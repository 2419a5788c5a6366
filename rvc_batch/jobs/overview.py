"""What `status` asks of the database: the present, the backlog and the last day, read as one consistent view.

Only the columns that are shown are read, so that ten thousand jobs are summed up in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.db.migrate import revision
from rvc_batch.jobs.models import JobState

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


def read_overview(c: Connection, now: float) -> Overview:
    """Read the view in the caller's transaction."""
    found = _pairs(c, statements.counts())
    return Overview(
        schema=revision(c) or "none",
        counts={state: found.get(str(state), 0) for state in JobState},
        running=_lines(c, statements.running_lines()),
        next=_lines(c, statements.next_lines(now, SHOWN_NEXT)),
        failed=_lines(c, statements.failed_lines(SHOWN_FAILED)),
        backlog=tuple(
            Backlog(row.voice, row.jobs, row.unknown, float(row.seconds), _speeds(c, row.voice))
            for row in c.execute(statements.unfinished_audio()).all()
        ),
        day=_day(c, now - DAY_S),
    )


def _pairs(c: Connection, statement: statements.Statement) -> dict[str, Any]:
    return {row[0]: row[1] for row in c.execute(statement)}


def _lines(c: Connection, statement: statements.Statement) -> tuple[JobLine, ...]:
    return tuple(JobLine(*row) for row in c.execute(statement))


def _speeds(c: Connection, voice: str) -> tuple[float, ...]:
    return tuple(float(speed) for speed in c.execute(statements.recent_speeds(voice, SPEED_SAMPLES)).scalars())


def _day(c: Connection, since: float) -> Day:
    ended = c.execute(statements.finished_since(since)).all()
    done = [row for row in ended if row.state == JobState.DONE]
    return Day(
        done=len(done),
        failed=sum(row.state == JobState.FAILED for row in ended),
        speeds=tuple(float(row.speed) for row in done if row.speed is not None),
        waits=tuple(max(float(row.wait), 0.0) for row in done if row.wait is not None),
        stage_seconds=_pairs(c, statements.stage_seconds_since(since)),
    )

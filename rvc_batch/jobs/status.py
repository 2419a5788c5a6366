"""The status record: what the daemon's heartbeat file, the database and the folders say, and one word for it.

Three sources that fail apart: any of them may be missing, locked, old or from another version, and the others are
still reported. Old facts carry their age. Nothing here writes, waits for a lock, or loads a framework.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rvc_batch.db.revisions import REVISIONS
from rvc_batch.db.snapshot import open_snapshot
from rvc_batch.errors import RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs.daemon_facts import DaemonFacts, age_of, read_daemon, rounded
from rvc_batch.jobs.estimate import Speed, TimeLeft, speed_of, time_left
from rvc_batch.jobs.models import NOT_PAUSED, Arrival, ArrivalVerdict, JobState, PauseState
from rvc_batch.jobs.overview import Overview, read_arrivals, read_is_draining, read_overview, read_pause, read_version
from rvc_batch.version import __version__

LOW_SPACE = 1 << 30  # bytes


class Word(StrEnum):
    """The first word of the answer."""

    OK = "OK"
    BUSY = "BUSY"
    PAUSED = "PAUSED"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


FINE, IMPAIRED, DOWN, CANNOT_TELL = 0, 1, 2, 3  # exit codes
EXIT_CODES = {Word.OK: FINE, Word.BUSY: FINE, Word.PAUSED: IMPAIRED, Word.DEGRADED: IMPAIRED, Word.DOWN: DOWN}


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """The database; `error` says why nothing could be read from it."""

    path: str
    size: int | None = None
    error: str = ""
    note: str = ""
    overview: Overview | None = None
    pause: PauseState = NOT_PAUSED
    is_draining: bool = False
    arrivals: tuple[Arrival, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FolderFacts:
    """A folder of the home; `error` says why it cannot be used."""

    path: str
    free_bytes: int | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything `rvc-batch status` shows. Times are UTC epoch seconds."""

    at: float
    word: Word
    reason: str
    command: str  # that fixes it; empty where none is needed
    exit_code: int
    home: str
    daemon: DaemonFacts
    database: DatabaseFacts
    inbox: FolderFacts
    outbox: FolderFacts
    left: TimeLeft | None  # for all that is queued and running; None when it cannot be told
    speed: Speed | None  # of the last day


def read_status(home: Home, *, clock: Callable[[], float] = time.time) -> Status:
    """Put the status record together. Never raises for anything that is wrong with the box."""
    now = clock()
    daemon = read_daemon(home, now)
    database = read_database(home.database, now)
    inbox, outbox = _folder(home.inbox), _folder(home.outbox)
    overview = database.overview
    left = None if overview is None else time_left(overview.backlog)
    word, reason, command = verdict(daemon, database, inbox, outbox)
    cannot_tell = daemon.is_alive and overview is None
    return Status(
        at=now,
        word=word,
        reason=reason,
        command=command,
        exit_code=CANNOT_TELL if cannot_tell else EXIT_CODES[word],
        home=str(home.root),
        daemon=daemon,
        database=database,
        inbox=inbox,
        outbox=outbox,
        left=left,
        speed=None if overview is None else speed_of(overview.day.speeds),
    )


def verdict(
    daemon: DaemonFacts, database: DatabaseFacts, inbox: FolderFacts, outbox: FolderFacts
) -> tuple[Word, str, str]:
    """Return the word, its reason, and the command that fixes it; the worst fact decides."""
    counts = {} if database.overview is None else database.overview.counts
    running, queued = counts.get(JobState.RUNNING, 0), counts.get(JobState.QUEUED, 0)
    if not daemon.is_alive:
        waiting = running + queued + counts.get(JobState.INGESTING, 0)
        return Word.DOWN, f"{daemon.trouble}{f'; {waiting} jobs wait' if waiting else ''}", "rvc-batch run"
    if daemon.trouble:
        return Word.DEGRADED, daemon.trouble, f"kill {daemon.pid}; rvc-batch run"
    if database.error:
        return Word.DEGRADED, database.error, ""
    pause = database.pause
    if pause.paused and pause.code:
        return Word.PAUSED, f"{pause.code}: {pause.reason}; nothing was lost, work resumes by itself", ""
    if pause.paused:
        return Word.PAUSED, pause.reason, "rvc-batch resume"
    for trouble in (daemon.inbox_error, inbox.error, outbox.error, daemon.last_error):
        if trouble:
            return Word.DEGRADED, trouble, ""
    draining = "draining, nothing new is taken: " if database.is_draining else ""
    if running:
        return Word.BUSY, f"{draining}converting {running}, {queued} waiting", ""
    if queued:
        return Word.BUSY, f"{draining}{queued} waiting", ""
    if draining:
        return Word.PAUSED, "drained: every job has ended, nothing new is taken", "rvc-batch resume"
    return Word.OK, "idle, the inbox is watched", ""


def read_database(path: Path, now: float) -> DatabaseFacts:
    """Read the database without writing; an error becomes a fact."""
    try:
        size = path.stat().st_size
    except OSError:
        size = None
    try:
        with open_snapshot(path) as view:
            overview, note = read_overview(view, now), ""
            if overview.schema not in REVISIONS:
                note = f"made by rvc-batch {read_version(view)} (schema {overview.schema}), this is {__version__}"
            return DatabaseFacts(
                path=str(path),
                size=size,
                note=note,
                overview=overview,
                pause=read_pause(view, now),
                is_draining=read_is_draining(view),
                arrivals=read_arrivals(view),
            )
    except RvcBatchError as e:
        return DatabaseFacts(path=str(path), size=size, error=str(e))


def notes(status: Status) -> list[str]:
    """Return what deserves a line of its own though nothing is wrong with the box."""
    lines = [status.database.note] if status.database.note else []
    for arrival in status.database.arrivals:
        if arrival.verdict in (ArrivalVerdict.INCOMPLETE, ArrivalVerdict.UNREADABLE):
            name = arrival.path.decode("utf-8", "replace")
            still = rounded(age_of(arrival.last_change, status.at))
            lines.append(f"inbox/{name} is {arrival.verdict}: {arrival.reason}; unchanged for {still}")
    free = status.outbox.free_bytes
    if free is not None and free < LOW_SPACE:
        lines.append(f"only {free / 1e6:.0f} MB are left on the volume of the outbox")
    return lines


def _folder(path: Path) -> FolderFacts:
    if not path.is_dir():
        return FolderFacts(path=str(path), error=f"{path} is missing")
    try:
        return FolderFacts(path=str(path), free_bytes=shutil.disk_usage(path).free)
    except OSError as e:
        return FolderFacts(path=str(path), error=f"{path} cannot be used: {e.strerror}")

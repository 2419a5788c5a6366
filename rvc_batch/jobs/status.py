"""The status record: what the daemon's heartbeat file, the database and the folders say, and one word for it.

Three sources that fail apart: any of them may be missing, locked, old or from another version, and the others are
still reported. Old facts carry their age. Nothing here writes, waits for a lock, or loads a framework.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rvc_batch.db.schema import REVISIONS
from rvc_batch.errors import RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs.estimate import Speed, TimeLeft, speed_of, time_left
from rvc_batch.jobs.models import NOT_PAUSED, Arrival, ArrivalVerdict, JobState, PauseState
from rvc_batch.jobs.overview import Overview
from rvc_batch.jobs.reading import QueueReader
from rvc_batch.version import __version__

STATUS_VERSION = 1
HEARTBEAT_VERSION = 1
STALE_S = 15.0  # the daemon writes its heartbeat about once a second
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
class WorkerFacts:
    """The worker, as the daemon last knew it."""

    pid: int | None
    state: str
    backend: str
    device: str
    warm_voices: tuple[str, ...]
    rss: int | None
    job_id: int | None
    age_s: float | None  # since its last word
    restarts: int


@dataclass(frozen=True, kw_only=True)
class DaemonFacts:
    """The daemon. `trouble` is empty while it lives and reports."""

    is_alive: bool
    trouble: str
    pid: int | None = None
    version: str = ""
    uptime_s: float | None = None
    age_s: float | None = None  # since its last heartbeat
    inbox_mode: str = ""
    rescan_age_s: float | None = None
    inbox_error: str = ""
    last_error: str = ""
    worker: WorkerFacts | None = None


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """The database; `error` says why nothing could be read from it."""

    path: str
    size: int | None = None
    error: str = ""
    note: str = ""
    overview: Overview | None = None
    pause: PauseState = NOT_PAUSED
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
    database = read_database(home.database, clock)
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
    if running:
        return Word.BUSY, f"converting {running}, {queued} waiting", ""
    if queued:
        return Word.BUSY, f"{queued} waiting", ""
    return Word.OK, "idle, the inbox is watched", ""


def read_daemon(home: Home, now: float) -> DaemonFacts:
    """Read the heartbeat file and find out whether the process that wrote it lives."""
    path = home.state / "daemon.json"
    try:
        beat = json.loads(path.read_bytes())
        if beat["version"] != HEARTBEAT_VERSION:
            return DaemonFacts(is_alive=False, trouble=f"{path} was written by another version of rvc-batch")
        return _daemon(beat, now)
    except FileNotFoundError:
        return DaemonFacts(is_alive=False, trouble="the daemon is not running")
    except (OSError, ValueError, KeyError, TypeError) as e:
        return DaemonFacts(is_alive=False, trouble=f"{path} cannot be read ({type(e).__name__}: {e})")


def _daemon(beat: dict[str, Any], now: float) -> DaemonFacts:
    pid, age = int(beat["pid"]), _age(beat["updated_at"], now)
    is_alive, trouble = True, ""
    if not _is_running(pid, beat, is_fresh=age is not None and age < STALE_S):
        is_alive, trouble = False, f"the daemon (pid {pid}) is gone, its last word is {_round(age)} old"
    elif age is None or age >= STALE_S:
        trouble = f"the daemon (pid {pid}) lives but has said nothing for {_round(age)}"
    watcher = beat.get("watcher") or {}
    worker = beat.get("worker")
    return DaemonFacts(
        is_alive=is_alive,
        trouble=trouble,
        pid=pid,
        version=str(beat.get("app_version", "")),
        uptime_s=_age(beat["started_at"], now) if is_alive else None,
        age_s=age,
        inbox_mode=str(watcher.get("mode", "")),
        rescan_age_s=_age(watcher.get("last_rescan_at"), now),
        inbox_error=str(watcher.get("error") or ""),
        last_error=str(beat.get("last_error") or ""),
        worker=None if worker is None else _worker(worker, now),
    )


def _worker(found: dict[str, Any], now: float) -> WorkerFacts:
    return WorkerFacts(
        pid=found.get("pid"),
        state=str(found.get("state", "")),
        backend=str(found.get("backend", "")),
        device=str(found.get("device", "")),
        warm_voices=tuple(found.get("warm_voices", ())),
        rss=found.get("rss"),
        job_id=found.get("job_id"),
        age_s=_age(found.get("updated_at"), now),
        restarts=int(found.get("restarts", 0)),
    )


def _is_running(pid: int, beat: dict[str, Any], *, is_fresh: bool) -> bool:
    """Tell whether this process exists and is the one that wrote the heartbeat: numbers are used again."""
    if beat.get("host") not in (None, platform.node()):
        return is_fresh  # another machine's process cannot be asked
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs as another user
    if is_fresh:
        return True
    import psutil

    try:
        return abs(float(psutil.Process(pid).create_time()) - float(beat["process_start"])) < 2.0
    except psutil.Error:
        return False


def read_database(path: Path, clock: Callable[[], float]) -> DatabaseFacts:
    """Read the database without writing; an error becomes a fact."""
    try:
        size = path.stat().st_size
    except OSError:
        size = None
    reader: QueueReader | None = None
    try:
        reader = QueueReader.open_readonly(path, clock=clock)
        overview, note = reader.overview(), ""
        if overview.schema not in REVISIONS:
            note = f"made by rvc-batch {reader.version()} (schema {overview.schema}), this is {__version__}"
        return DatabaseFacts(
            path=str(path),
            size=size,
            note=note,
            overview=overview,
            pause=reader.paused(),
            arrivals=tuple(reader.arrivals()),
        )
    except RvcBatchError as e:
        return DatabaseFacts(path=str(path), size=size, error=str(e))
    finally:
        if reader is not None:
            with contextlib.suppress(RvcBatchError):
                reader.close()


def notes(status: Status) -> list[str]:
    """Return what deserves a line of its own though nothing is wrong with the box."""
    lines = [status.database.note] if status.database.note else []
    for arrival in status.database.arrivals:
        if arrival.verdict in (ArrivalVerdict.INCOMPLETE, ArrivalVerdict.UNREADABLE):
            name = arrival.path.decode("utf-8", "replace")
            still = _round(_age(arrival.last_change, status.at))
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


def _age(then: float | None, now: float) -> float | None:
    """Return seconds since then; a clock that was set back never makes it negative."""
    return None if then is None else max(now - float(then), 0.0)


def _round(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"

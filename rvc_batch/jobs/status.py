"""The status record: what the daemon's heartbeat file, the database and the folders say, and one word for it.

Three sources that fail apart: any of them may be missing, locked, old or from another version, and the others are
still reported. Old facts carry their age. Nothing here writes, waits for a lock, or loads a framework.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from rvc_batch.db.revisions import REVISIONS
from rvc_batch.db.snapshot import open_snapshot
from rvc_batch.errors import DatabaseUnusable, RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs.daemon_facts import DaemonFacts, age_of, read_daemon, rounded
from rvc_batch.jobs.estimate import Speed, TimeLeft, speed_of, time_left, why_no_estimate
from rvc_batch.jobs.models import NOT_PAUSED, Arrival, ArrivalVerdict, JobState, PauseState
from rvc_batch.jobs.overview import (
    HookBehind,
    Overview,
    read_arrivals,
    read_hooks_behind,
    read_is_draining,
    read_overview,
    read_pause,
    read_schema,
    read_version,
)
from rvc_batch.version import __version__

LOW_SPACE = 1 << 30  # bytes
WITHOUT_HOOKS = ("none", "0001")  # schemas before the outbox of the hooks


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
class ServiceFacts:
    """The service of the system that is installed for this home, by its file."""

    manager: str  # launchd or systemd
    is_system: bool
    file: str
    user: str

    def command(self, verb: str) -> str:
        """Return the command that does this to it."""
        if not self.is_system:
            return f"rvc-batch service {verb}"
        return f"sudo rvc-batch service {verb} --system --user {self.user}"


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """The database; `error` says why nothing could be read from it."""

    path: str
    size: int | None = None
    sqlite_version: str = sqlite3.sqlite_version
    backup_age_s: float | None = None  # of the newest backup in its usual folder
    error: str = ""
    note: str = ""
    overview: Overview | None = None
    pause: PauseState = NOT_PAUSED
    is_draining: bool = False
    arrivals: tuple[Arrival, ...] = ()
    hooks_behind: tuple[HookBehind, ...] = ()


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
    service: ServiceFacts | None
    daemon: DaemonFacts
    database: DatabaseFacts
    inbox: FolderFacts
    outbox: FolderFacts
    left: TimeLeft | None  # for all that is queued and running; None when it cannot be told
    left_unknown: str  # why it cannot be told
    speed: Speed | None  # of the last day


def read_status(home: Home, *, service: ServiceFacts | None = None, clock: Callable[[], float] = time.time) -> Status:
    """Put the status record together. Never raises for anything that is wrong with the box.

    Args:
        service: what is installed for this home (`rvc_batch.service.presence`).
    """
    now = clock()
    daemon = read_daemon(home, now)
    database = replace(read_database(home.database, now), backup_age_s=_backup_age(home, now))
    inbox, outbox = _folder(home.inbox), _folder(home.outbox)
    overview = database.overview
    left = None if overview is None else time_left(overview.backlog)
    word, reason, command = verdict(daemon, database, folders=(inbox, outbox), service=service, now=now)
    cannot_tell = daemon.is_alive and overview is None
    return Status(
        at=now,
        word=word,
        reason=reason,
        command=command,
        exit_code=CANNOT_TELL if cannot_tell else EXIT_CODES[word],
        home=str(home.root),
        service=service,
        daemon=daemon,
        database=database,
        inbox=inbox,
        outbox=outbox,
        left=left,
        left_unknown="" if overview is None else why_no_estimate(overview.backlog),
        speed=None if overview is None else speed_of(overview.day.speeds),
    )


def verdict(
    daemon: DaemonFacts,
    database: DatabaseFacts,
    *,
    folders: tuple[FolderFacts, ...],
    service: ServiceFacts | None,
    now: float,
) -> tuple[Word, str, str]:
    """Return the word, its reason, and the command that fixes it; the worst fact decides."""
    counts = {} if database.overview is None else database.overview.counts
    running, queued = counts.get(JobState.RUNNING, 0), counts.get(JobState.QUEUED, 0)
    if not daemon.is_alive:
        waiting = running + queued + counts.get(JobState.INGESTING, 0)
        start = "rvc-batch run" if service is None else service.command("start")
        left = f"; {counted(waiting, 'job')} {'waits' if waiting == 1 else 'wait'}" if waiting else ""
        return Word.DOWN, daemon.trouble + left, start
    if daemon.trouble:
        again = f"kill {daemon.pid}; rvc-batch run" if service is None else service.command("restart")
        return Word.DEGRADED, daemon.trouble, again
    if database.error:
        gone = " while the daemon uses it; stop the daemon and put the newest backup in its place"
        error = f"{database.path} is gone{gone}" if database.size is None else database.error
        return Word.DEGRADED, error, "rvc-batch doctor"
    pause = database.pause
    if pause.paused:
        kept = f" · for {rounded(age_of(pause.since, now))}, the queue keeps {counted(running + queued, 'job')}"
        if pause.code:
            end = "; nothing was lost, work resumes by itself"
            return Word.PAUSED, f"{pause.code}: {pause.reason}{end}{kept}", ""
        return Word.PAUSED, pause.reason + kept, "rvc-batch resume"
    for trouble in (daemon.inbox_error, *(folder.error for folder in folders), daemon.last_error):
        if trouble:
            return Word.DEGRADED, trouble, "rvc-batch doctor"
    broken = None if daemon.self_test is None else daemon.self_test.trouble
    if broken is not None:
        return Word.DEGRADED, f"self-test: {broken.what}; {broken.remedy}", "rvc-batch doctor"
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
    size = _size(path)
    try:
        with open_snapshot(path) as view:
            schema, note = read_schema(view), ""
            if schema not in REVISIONS:
                note = f"made by rvc-batch {read_version(view)} (schema {schema}), this is {__version__}"
            try:
                overview = read_overview(view, now)
            except sqlite3.Error as e:
                if not note:
                    raise
                raise DatabaseUnusable(f"{path} cannot be read: {note}; install that version") from e
            return DatabaseFacts(
                path=str(path),
                size=size,
                note=note,
                overview=overview,
                pause=read_pause(view, now),
                is_draining=read_is_draining(view),
                arrivals=read_arrivals(view),
                hooks_behind=() if schema in WITHOUT_HOOKS else read_hooks_behind(view),
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
    for hook in status.database.hooks_behind:
        given_up = f", {hook.given_up} of them given up" if hook.given_up else ""
        lines.append(f"hook {hook.hook} was not told {counted(hook.events, 'event')}{given_up}: {hook.error}")
    free = status.outbox.free_bytes
    if free is not None and free < LOW_SPACE:
        lines.append(f"only {free / 1e6:.0f} MB are left on the volume of the outbox")
    return lines


def counted(number: int, noun: str) -> str:
    """Return "1 job" or "2 jobs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(path: Path) -> int | None:
    """Return the size of the database with what waits in its write-ahead log."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    try:
        return size + path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return size


def _backup_age(home: Home, now: float) -> float | None:
    """Return the age of the newest backup, by its name as `jobs.backup` chooses it."""
    try:
        newest = max(home.backups.glob("jobs-*.sqlite3"), default=None, key=lambda path: path.name)
        return None if newest is None else age_of(newest.stat().st_mtime, now)
    except OSError:
        return None


def _folder(path: Path) -> FolderFacts:
    if not path.is_dir():
        return FolderFacts(path=str(path), error=f"{path} is missing")
    try:
        return FolderFacts(path=str(path), free_bytes=shutil.disk_usage(path).free)
    except OSError as e:
        return FolderFacts(path=str(path), error=f"{path} cannot be used: {e.strerror}")

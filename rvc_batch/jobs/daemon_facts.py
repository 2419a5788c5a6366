"""What the heartbeat file says of the daemon and its worker, and whether the process that wrote it still lives.

The file is `state/daemon.json`; jobs/heartbeat.py writes it. Reading it needs no database and loads nothing of the
daemon.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, replace
from typing import Any

from rvc_batch.home import Home
from rvc_batch.jobs.starts import read_last_start

HEARTBEAT_VERSION = 1
STALE_S = 15.0  # the daemon writes its heartbeat about once a second


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
    open_files: int | None = None
    open_files_limit: int | None = None
    worker: WorkerFacts | None = None


def read_daemon(home: Home, now: float) -> DaemonFacts:
    """Read the heartbeat file and find out whether the process that wrote it lives; if not, why it does not start."""
    facts = _read_heartbeat(home, now)
    start = None if facts.is_alive else read_last_start(home)
    return facts if start is None else replace(facts, trouble=start.sentence())


def _read_heartbeat(home: Home, now: float) -> DaemonFacts:
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
    pid, age = int(beat["pid"]), age_of(beat["updated_at"], now)
    is_alive, trouble = True, ""
    if not _is_running(pid, beat, is_fresh=age is not None and age < STALE_S):
        is_alive, trouble = False, f"the daemon (pid {pid}) is gone, its last word is {rounded(age)} old"
    elif age is None or age >= STALE_S:
        trouble = f"the daemon (pid {pid}) lives but has said nothing for {rounded(age)}"
    watcher = beat.get("watcher") or {}
    worker = beat.get("worker")
    return DaemonFacts(
        is_alive=is_alive,
        trouble=trouble,
        pid=pid,
        version=str(beat.get("app_version", "")),
        uptime_s=age_of(beat["started_at"], now) if is_alive else None,
        age_s=age,
        inbox_mode=str(watcher.get("mode", "")),
        rescan_age_s=age_of(watcher.get("last_rescan_at"), now),
        inbox_error=str(watcher.get("error") or ""),
        last_error=str(beat.get("last_error") or ""),
        open_files=beat.get("open_files"),
        open_files_limit=beat.get("open_files_limit"),
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
        age_s=age_of(found.get("updated_at"), now),
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


def age_of(then: float | None, now: float) -> float | None:
    """Return seconds since then; a clock that was set back never makes it negative."""
    return None if then is None else max(now - float(then), 0.0)


def rounded(seconds: float | None) -> str:
    """Return a time span for a sentence."""
    if seconds is None:
        return "an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"

"""What the heartbeat file says of the daemon and its worker, and whether the process that wrote it still lives.

The file is `state/daemon.json`; jobs/heartbeat.py writes it. Reading it needs no database and loads nothing of the
daemon.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field, replace
from typing import Any

from rvc_batch.home import Home
from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.starts import read_last_start

HEARTBEAT_VERSION = 1
STALE_S = 15.0  # the daemon writes its heartbeat about once a second
SELF_TEST_PATIENCE_S = 180.0  # a self-test that takes longer hangs; asking a GPU for the first time takes two minutes


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
    uptime_s: float | None = None
    replaced_s: float | None = None  # since the one before it was gone
    replaced_why: str = ""
    restart_reasons: dict[str, int] = field(default_factory=dict)
    memory_active: int | None = None  # on the device, in bytes
    memory_cache: int | None = None
    memory_cache_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class SelfTestFacts:
    """What the daemon found when it tested itself. `age_s` is since it ended, or since it began while it runs."""

    is_running: bool
    age_s: float | None
    checking: str
    findings: tuple[Finding, ...]

    @property
    def trouble(self) -> Finding | None:
        """The first thing that does not work."""
        if self.is_running and self.checking and (self.age_s or 0.0) > SELF_TEST_PATIENCE_S:
            what = f"the check of {self.checking} has not answered for {rounded(self.age_s)}"
            return Finding(self.checking, Level.FAULT, what, "look at the screen of the machine for a question")
        return next((finding for finding in self.findings if finding.level is Level.FAULT), None)


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
    started_by: str = ""
    database_busy: int = 0  # waits for the write lock that were in vain
    self_test: SelfTestFacts | None = None
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
        started_by=str(beat.get("started_by", "")),
        database_busy=int(beat.get("database_busy", 0)),
        self_test=_self_test(beat.get("self_test"), now),
        worker=None if worker is None else _worker(worker, now),
    )


def _self_test(found: dict[str, Any] | None, now: float) -> SelfTestFacts | None:
    if found is None:
        return None
    ended = found["ended_at"]
    return SelfTestFacts(
        is_running=ended is None,
        age_s=age_of(found["started_at"] if ended is None else ended, now),
        checking=str(found["checking"]),
        findings=tuple(Finding(**line | {"level": Level(line["level"])}) for line in found["findings"]),
    )


def _worker(found: dict[str, Any], now: float) -> WorkerFacts:
    memory = found.get("memory") or {}
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
        uptime_s=age_of(found.get("started_at"), now),
        replaced_s=age_of(found.get("replaced_at"), now),
        replaced_why=str(found.get("last_restart_reason") or ""),
        restart_reasons=dict(found.get("restart_reasons") or {}),
        memory_active=memory.get("active"),
        memory_cache=memory.get("cache"),
        memory_cache_limit=memory.get("cache_limit"),
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

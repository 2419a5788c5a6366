"""What a process can do where it runs: write its folders, compute on the device, decode, open files.

The daemon asks this of itself, because the answer of a terminal proves nothing about a service: launchd and systemd
give another environment, other limits and other permissions. `doctor` asks the same of the process it runs in.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from rvc_batch.config import Settings
from rvc_batch.errors import FolderGone
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.folders import Folders
from rvc_batch.jobs.machine_probe import MachineFacts, probe_machine

logger = logging.getLogger(__name__)

SAFE_SQLITE = (3, 51, 3)  # before: two connections that checkpoint at once can corrupt the file (sqlite.org/wal.html)
DESCRIPTORS = 1024
LOW_SPACE, NO_SPACE = 2 << 30, 200 << 20  # bytes: an hour of audio takes about a gigabyte while it is rendered
NEEDED_CODECS = ("WAV", "FLAC", "AIFF", "OGG", "MP3")
STOP_SECONDS = 5.0  # for the check at hand
CHECK_NAME = ".rvc-batch-check-"  # and the number of the process
REPEAT_SECONDS = 6 * 3600.0

Starting = Callable[["subprocess.Popen[bytes]"], None]
Probe = Callable[[str, Starting], MachineFacts]


@dataclass(frozen=True)
class SelfTestRecord:
    """What the heartbeat file says of the self-test; times are UTC epoch seconds.

    `checking` names the check that is being made: on macOS one can wait for a question that nobody sees.
    """

    started_at: float
    ended_at: float | None
    checking: str
    findings: tuple[Finding, ...]


def self_test(
    home: Home, settings: Settings, *, probe: Callable[[str], MachineFacts], say: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield what each check finds.

    Args:
        probe: asks a process of its own about device, BLAS and codecs.
        say: is told the name of each check before it is made.
    """
    folders = Folders(home, marks=False)
    checks = {home.inbox: folders.check_inbox, home.outbox: folders.check_outbox}
    for folder in (home.inbox, home.outbox, home.processed, home.failed, home.work, home.logs):
        say(f"{folder.name}/")
        yield _folder(folder, checks.get(folder))
    yield from _space(home)
    say("device")
    yield from _machine(probe(settings.worker.backend), settings.worker.backend)
    yield descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield sqlite(sqlite3.sqlite_version_info)


class SelfTest:
    """Tests the process it lives in, in a thread: at its start, when asked to, and every six hours."""

    def __init__(
        self,
        home: Home,
        settings: Callable[[], Settings],
        *,
        probe: Probe = probe_machine,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home, self._settings, self._probe, self._clock = home, settings, probe, clock
        self._record: SelfTestRecord | None = None
        self._asked = threading.Event()
        self._is_stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="self-test", daemon=True)

    def start(self) -> None:
        """Begin the first test."""
        self._thread.start()

    def repeat(self) -> None:
        """Test again, soon."""
        self._asked.set()

    def stop(self) -> None:
        """Test no more; a check that hangs is left behind."""
        self._is_stopping = True
        if self._process is not None:
            self._process.kill()
        self._asked.set()
        self._thread.join(STOP_SECONDS)

    @property
    def record(self) -> SelfTestRecord | None:
        """What is known so far."""
        return self._record

    def _run(self) -> None:
        while not self._is_stopping:
            self._asked.clear()
            try:
                self._test()
            except Exception:
                logger.exception("the self-test ended early")
            self._asked.wait(REPEAT_SECONDS)

    def _test(self) -> None:
        started, found = self._clock(), list[Finding]()

        def note(checking: str) -> None:
            self._record = SelfTestRecord(started, None, checking, tuple(found))

        def hold(process: subprocess.Popen[bytes]) -> None:
            self._process = process
            if self._is_stopping:
                process.kill()

        note("")
        for finding in self_test(self._home, self._settings(), probe=lambda name: self._probe(name, hold), say=note):
            if self._is_stopping:
                return
            found.append(finding)
            if finding.level is not Level.OK:
                logger.warning("self-test: %s: %s; %s", finding.check, finding.what, finding.remedy)
        self._process = None
        self._record = SelfTestRecord(started, self._clock(), "", tuple(found))
        logger.info("self-test: %d checks, %d not ok", len(found), sum(f.level is not Level.OK for f in found))


def _folder(folder: Path, check_volume: Callable[[], None] | None) -> Finding:
    check = f"{folder.name}/"
    if not folder.is_dir():
        what = f"{folder} is {'not a folder' if folder.exists() else 'missing'}"
        return Finding(check, Level.FAULT, what, "`rvc-batch run` creates it; if it is on a volume, mount that")
    try:
        if check_volume is not None:
            check_volume()
    except FolderGone as e:
        return Finding(check, Level.FAULT, str(e), "mount the volume")
    error = why_not_durable(folder)
    if error is None:
        return Finding(check, Level.OK, f"{folder} takes files: written, synced, renamed")
    remedy = "make it writable for this user; results and sources are written and renamed there"
    if sys.platform == "darwin" and error.errno in (errno.EPERM, errno.EACCES):
        remedy = f"System Settings → Privacy & Security → Full Disk Access: add {sys.executable}; or {remedy}"
    return Finding(check, Level.FAULT, f"{folder} cannot take a file: {error.strerror or error}", remedy)


def why_not_durable(folder: Path) -> OSError | None:
    """Write, sync and rename a hidden file in a folder; return what went wrong."""
    part, whole = (folder / f"{CHECK_NAME}{os.getpid()}.{suffix}" for suffix in ("part", "tmp"))
    try:
        _remove_left_checks(folder)
        with part.open("wb") as file:
            file.write(b"rvc-batch was here to see whether it can write\n")
            file.flush()
            durable.sync_file(file.fileno())
        part.rename(whole)
        durable.sync_folder(folder)
        whole.unlink()
    except OSError as e:
        for left in (part, whole):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
        return e
    return None


def _remove_left_checks(folder: Path) -> None:
    """Remove the hidden files of checks that were killed; those of a living process are its own."""
    for left in folder.glob(f"{CHECK_NAME}*"):
        process = left.name.removeprefix(CHECK_NAME).partition(".")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)


def _space(home: Home) -> Iterator[Finding]:
    """One finding per volume."""
    seen: dict[int, list[Path]] = {}
    for folder in (home.state, home.outbox, home.inbox):
        if folder.is_dir():
            seen.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in seen.values():
        free = shutil.disk_usage(folders[0]).free
        level = Level.FAULT if free < NO_SPACE else Level.WARNING if free < LOW_SPACE else Level.OK
        remedy = "" if level is Level.OK else "free some space; the queue waits when there is none"
        names = ", ".join(f"{folder.name}/" for folder in folders)
        yield Finding("free space", level, f"{free / 1e9:.1f} GB on the volume of {names}", remedy)


def _machine(facts: MachineFacts, backend: str) -> Iterator[Finding]:
    speed = "" if facts.gflops is None else f", {facts.gflops:.0f} GFLOP/s in a matrix product"
    is_cpu = facts.device == "cpu"
    if facts.trouble:
        yield Finding("device", Level.FAULT, facts.trouble, f"reinstall {backend}, or set worker.backend")
    else:
        yield Finding("device", Level.OK, f"{backend} on {facts.device}{speed}")
    if facts.blas == "reference":
        what = f"reference: about sixty times slower on a CPU{speed if is_cpu else ''}"
        remedy = "install libopenblas0-pthread (Debian, Ubuntu), openblas-threads (Fedora) or the faiss-cpu wheel"
        yield Finding("BLAS", Level.WARNING, what, remedy)
    elif facts.blas:
        yield Finding("BLAS", Level.OK, f"{facts.blas} {facts.blas_path}".strip() + (speed if is_cpu else ""))
    missing = [name for name in NEEDED_CODECS if name not in facts.codecs]
    if missing:
        what = f"libsndfile cannot decode {', '.join(missing)}"
        yield Finding("codecs", Level.FAULT, what, "install the soundfile wheel, which brings a whole libsndfile")
    else:
        yield Finding("codecs", Level.OK, f"{len(facts.codecs)} containers, {', '.join(NEEDED_CODECS)} among them")


def descriptors(limit: int) -> Finding:
    """Judge the limit of open files."""
    if limit == resource.RLIM_INFINITY or limit >= DESCRIPTORS:
        return Finding("open files", Level.OK, f"limit {'none' if limit == resource.RLIM_INFINITY else limit}")
    return Finding(
        "open files", Level.WARNING, f"limit {limit}", "the daemon raises its own; `ulimit -n 8192` for commands"
    )


def sqlite(version: tuple[int, ...]) -> Finding:
    """Judge the version of SQLite."""
    text = ".".join(map(str, version))
    if version >= SAFE_SQLITE:
        return Finding("SQLite", Level.OK, text)
    remedy = "do not open the database with other programs while the daemon runs; a newer Python brings a newer SQLite"
    return Finding(
        "SQLite", Level.WARNING, f"{text}, before 3.51.3 two checkpoints at once can damage a database", remedy
    )

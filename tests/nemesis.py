"""Who breaks things in the soak: processes, database, volumes, queue; and the daemon it does it to.

Each blow is over, and what it broke is put right, before the next one falls; only a pause or a full or absent volume
may last as long as a few seconds. `relent` puts all right for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import psutil

from rvc_batch.errors import RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs.models import ACTIVE, JobState
from rvc_batch.jobs.queue import Queue
from tests.daemon_harness import DaemonProcess, jobs_of

NAMES = ("inbox", "outbox")
OUTBOX_MB = 24
SETTINGS = """default_voice = "alto"
[watch]
settle_seconds = 0.1
rescan_seconds = 0.3
truncated_after_seconds = 3.0
[worker]
stuck_after_seconds = 20.0
recycle_after_jobs = 60
[retention]
logs_days = 1
"""  # in a file, so that reading them again changes nothing


def can_mount() -> bool:
    """Does the system let us have mounts of our own?"""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Volumes:
    """Inbox and outbox as volumes of their own, where we may mount; else the plain folders."""

    def __init__(self, home: Home) -> None:
        self._home, self._disks = home, home.root.parent / "disks"
        self.are_real = False
        self._ballast = self._disks / "outbox" / ".ballast"
        self.inbox = home.inbox

    def mount_all(self) -> None:
        self.are_real = can_mount()
        for name in NAMES if self.are_real else ():
            (self._disks / name).mkdir(parents=True)
            size = ["-o", f"size={OUTBOX_MB}m"] if name == "outbox" else []
            subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", self._disks / name], check=True)
            self.mount(name)
            self.inbox = self._disks / "inbox"

    def mount(self, name: str) -> None:
        subprocess.run(["mount", "--bind", self._disks / name, self._home.root / name], check=True)

    def unmount(self, name: str) -> None:
        subprocess.run(["umount", "--lazy", self._home.root / name], check=True)

    def unmount_all(self) -> None:
        for name in NAMES if self.are_real else ():
            self.unmount(name)
            subprocess.run(["umount", "--lazy", self._disks / name], check=True)

    def fill(self) -> None:
        """Leave no byte free on the volume of the outbox."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


class SoakDaemon:
    """The daemon, started again whenever it is gone, as a service manager would."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._running: DaemonProcess | None = None
        self.lives = 0

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.process.pid

    def start(self) -> None:
        self._running = DaemonProcess(self._home, "--settings-file")
        self.lives += 1

    def restart_if_gone(self) -> None:
        if self._running is not None and self._running.process.poll() is not None:
            self._running.end()
            self.start()

    def signal(self, number: int) -> None:
        assert self._running is not None
        if self._running.process.poll() is None:
            self._running.process.send_signal(number)

    def stop(self) -> int:
        """End it on purpose; return its exit status."""
        assert self._running is not None
        self.signal(signal.SIGTERM)
        return self._running.wait(60)

    def end(self) -> None:
        if self._running is not None:
            self._running.end()

    def tail(self) -> str:
        return (self._home.state / "test.log").read_text(errors="replace")[-8000:]


class Nemesis:
    """Breaks one thing after the other."""

    def __init__(self, home: Home, volumes: Volumes, seed: int) -> None:
        self._home, self._volumes, self._rng = home, volumes, random.Random(seed)
        self.daemon = SoakDaemon(home)
        self.done: Counter[str] = Counter()
        self._blows: dict[str, Callable[[], object]] = {
            "worker killed": lambda: self._signal_worker(signal.SIGKILL),
            "worker stopped for a while": self._stop_worker,
            "daemon stopped for a while": self._stop_daemon,
            "daemon asked to read its settings": lambda: self.daemon.signal(signal.SIGHUP),
            "database held": self._hold_database,
            "queue paused": self._pause,
            "job cancelled": self._cancel,
            "failed jobs retried": self._retry,
        }
        if volumes.are_real:
            self._blows |= {
                "volume full": self._fill,
                "outbox unmounted": lambda: self._unmount("outbox"),
                "inbox unmounted": lambda: self._unmount("inbox"),
            }
        self._on_the_daemon: dict[str, Callable[[], object]] = {
            "daemon killed": lambda: self.daemon.signal(signal.SIGKILL),
            "daemon and worker killed": self._kill_both,
            "daemon stopped by SIGTERM": self.daemon.stop,
        }

    def strike(self, *, spares_daemon: bool) -> None:
        """Do one thing, after a moment."""
        self._sleep(0.3, 2.5)
        is_up = self._has_begun() or self._rng.random() < 0.05  # a start takes long on a busy machine; let most succeed
        blows = self._blows if spares_daemon or not is_up else self._blows | self._on_the_daemon
        name = self._rng.choice(sorted(blows))
        blows[name]()
        self.done[name] += 1

    def relent(self) -> None:
        """Put right what may be broken."""
        self._volumes.empty()
        self.daemon.signal(signal.SIGCONT)
        with contextlib.suppress(RvcBatchError):
            self._change(lambda queue: queue.resume())

    def _sleep(self, least: float, most: float) -> None:
        time.sleep(self._rng.uniform(least, most))

    def _has_begun(self) -> bool:
        """Has this life of the daemon got as far as its worker?"""
        try:
            beat = json.loads((self._home.state / "daemon.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(beat["pid"] == self.daemon.pid and beat["worker"]["state"] in ("idle", "busy"))

    def _worker_pid(self) -> int | None:
        try:
            pid = json.loads((self._home.state / "daemon.json").read_bytes())["worker"]["pid"]
        except (OSError, ValueError, KeyError):
            return None
        return pid if pid and "rvc_batch.jobs.worker" in " ".join(_command(pid)) else None

    def _signal_worker(self, number: int) -> None:
        pid = self._worker_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _stop_worker(self) -> None:
        pid = self._worker_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._sleep(0.5, 4.0)
            os.kill(pid, signal.SIGCONT)

    def _stop_daemon(self) -> None:
        self.daemon.signal(signal.SIGSTOP)
        self._sleep(0.5, 3.0)
        self.daemon.signal(signal.SIGCONT)

    def _kill_both(self) -> None:
        self._signal_worker(signal.SIGKILL)
        self.daemon.signal(signal.SIGKILL)

    def _hold_database(self) -> None:
        if not self._home.database.is_file():
            return
        connection = sqlite3.connect(self._home.database, isolation_level=None, timeout=5)
        try:
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
                self._sleep(0.5, 3.0)
                connection.execute("ROLLBACK")
        finally:
            connection.close()

    def _change(self, verb: Callable[[Queue], object]) -> None:
        queue = Queue.open(self._home.database, owner=False)
        try:
            verb(queue)
        finally:
            queue.close()

    def _pause(self) -> None:
        self._if_there(lambda queue: queue.pause("the nemesis"))
        self._sleep(0.2, 2.0)
        self._if_there(lambda queue: queue.resume())

    def _cancel(self) -> None:
        active = [job for job in jobs_of(self._home) if job.state in ACTIVE]
        if active:
            number = self._rng.choice(active).id
            self._if_there(lambda queue: queue.cancel(number))

    def _retry(self) -> None:
        failed = [job.id for job in jobs_of(self._home) if job.state in (JobState.FAILED, JobState.CANCELLED)]
        for number in self._rng.sample(failed, min(2, len(failed))):
            self._if_there(lambda queue, number=number: queue.retry(number))  # type: ignore[misc]

    def _if_there(self, verb: Callable[[Queue], object]) -> None:
        """The job may have ended, and the database may not be there yet."""
        with contextlib.suppress(RvcBatchError):
            self._change(verb)

    def _fill(self) -> None:
        self._volumes.fill()
        self._sleep(0.5, 3.0)
        self._volumes.empty()

    def _unmount(self, name: str) -> None:
        self._volumes.unmount(name)
        self._sleep(0.5, 3.0)
        self._volumes.mount(name)


def _command(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []

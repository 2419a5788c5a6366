"""Runs a real daemon with the fake engine in a process of its own, and waits for what it does.

`python -m tests.daemon_harness HOME [--until-idle] [--engine NAME] [--stuck SECONDS] …` is that daemon: short settle
time, short delays between attempts, voices `alto` and `tenor`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rvc_batch import logs
from rvc_batch.config import Settings, WatchSettings, WorkerSettings, load_settings
from rvc_batch.errors import DatabaseUnusable
from rvc_batch.home import Home
from rvc_batch.jobs import box, retry_policy
from rvc_batch.jobs.daemon import Daemon, DaemonOptions
from rvc_batch.jobs.machine_probe import MachineFacts
from rvc_batch.jobs.models import Job
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.supervisor import Limits
from tests.job_fakes import write_audio

VOICES = ("alto", "tenor")
MACHINE = MachineFacts(device="imaginary", codecs=("WAV", "FLAC", "AIFF", "OGG", "MP3"))
LIMITS = Limits(heartbeat=0.1, idle_heartbeat=0.1, claim=0.2, stop=3.0, respawn=(0.1, 0.2), orphan=1.0)
ROOT = Path(__file__).parents[1]
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))  # a machine with much else to do needs more


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--until-idle", action="store_true")
    parser.add_argument("--engine", default="open_engine")
    parser.add_argument("--stuck", type=float, default=600.0)
    parser.add_argument("--recycle", type=int, default=1000)
    parser.add_argument("--rss", type=int, default=0)
    parser.add_argument("--settings-file", action="store_true", help="take the settings from the home's file")
    options = parser.parse_args()
    home = Home(options.home)
    logs.configure(home.logs, level="info")
    worker = WorkerSettings(
        stuck_after_seconds=options.stuck, recycle_after_jobs=options.recycle, rss_limit_mb=options.rss
    )
    with short_delays():
        daemon(
            home, None if options.settings_file else worker, until_idle=options.until_idle, engine=options.engine
        ).run()


def daemon(home: Home, worker: WorkerSettings | None, *, until_idle: bool, engine: str = "open_engine") -> Daemon:
    """Return a daemon with the fake engine and short times; without `worker` its settings are those of the file."""
    watch = WatchSettings(settle_seconds=0.1, rescan_seconds=0.3, truncated_after_seconds=3.0)
    settings = Settings(default_voice="alto", watch=watch, worker=worker) if worker else load_settings(home)
    options = DaemonOptions(
        until_idle=until_idle,
        engine=engine if ":" in engine else f"tests.fakes:{engine}",
        voices=lambda *_: VOICES,
        limits=LIMITS,
        probe=lambda _name, _starting: MACHINE,
        reopen_logs=lambda settings: logs.configure(home.logs, level="info", as_json=settings.log.format == "json"),
    )
    return Daemon(home, settings, options)


@contextmanager
def short_delays(seconds: float = 0.3) -> Iterator[None]:
    """Let jobs be tried again almost at once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CRASH_DELAY_S", "REFUND_DELAY_S", "PAUSE_SECONDS"):
            patch.setattr(retry_policy, name, seconds)
        patch.setattr(box, "PAUSE_SECONDS", seconds)
        patch.setattr(retry_policy, "LATER_DELAYS_S", (seconds / 3,) * 3)
        yield


class DaemonProcess:
    """A daemon under test."""

    def __init__(self, home: Home, *arguments: str, failpoints: str = "") -> None:
        home.create()
        self._log = (home.state / "test.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon_harness", str(home.root), *arguments],
            cwd=ROOT,
            env={**os.environ, "RVC_BATCH_FAILPOINTS": failpoints},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def wait(self, seconds: float = 30.0) -> int:
        """Return the exit status."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def running(home: Home, *arguments: str, failpoints: str = "") -> Iterator[DaemonProcess]:
    """Run a daemon for the length of a test; a failure shows its log."""
    daemon = DaemonProcess(home, *arguments, failpoints=failpoints)
    try:
        yield daemon
    except BaseException:
        print((home.state / "test.log").read_text(errors="replace")[-6000:])
        raise
    finally:
        daemon.end()


def run_until_idle(home: Home, **worker: Any) -> None:
    """Run a daemon in this process until it has nothing left to do; `worker` changes its settings."""
    with short_delays():
        daemon(home, WorkerSettings(**worker), until_idle=True).run()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.03)


def drop(home: Home, name: str, *, seconds: float = 0.1, seed: int = 0) -> Path:
    """Put an audio file into the inbox in one step, as a well-behaved producer does."""
    path = home.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.parent / f".incoming-{seed}-{os.getpid()}.wav"
    write_audio(temp, seconds=seconds, seed=seed)
    return temp.rename(path)


def jobs_of(home: Home) -> list[Job]:
    """Return all jobs, oldest first."""
    try:
        queue = Queue.open_readonly(home.database)
    except DatabaseUnusable:  # the daemon has not made it yet
        return []
    try:
        return queue.list()[::-1]
    except DatabaseUnusable:
        return []
    finally:
        queue.close()


def renders(home: Home) -> list[str]:
    """Return what the fake engine was asked to render."""
    log = home.state / "renders.log"
    return log.read_text(errors="surrogateescape").splitlines() if log.exists() else []


if __name__ == "__main__":
    main()

"""The daemon's end of one worker process: spawn it, talk to it, measure it, end it, say how it died.

The process is spawned by exec, never forked: a fork after a GPU was used crashes. It inherits nothing but its end of
the pipe and a file for what it writes to standard error, where faulthandler leaves the stacks of a crash.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO

import psutil

from rvc_batch.jobs.messages import FromWorker, Start, ToWorker

TRACE_BYTES = 4000
STDERR_BYTES = 10_000_000
ABORT_SECONDS = 5.0  # for the stacks to be written


class WorkerProcess:
    """A running (or ended) worker."""

    def __init__(self, start: Start, stderr: Path) -> None:
        """Spawn a worker and tell it to start.

        Raises:
            OSError: no process can be spawned.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            stderr.unlink(missing_ok=True)
            self._stderr: IO[bytes] = stderr.open("a+b")  # appended to, so that it can be emptied while it is in use
            path = os.pathsep.join(p for p in sys.path if p)  # the child finds what this process finds
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rvc_batch.jobs.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )
        self._connection = Connection(ours.detach())
        self._is_open = True
        self.pid = self._process.pid
        self.send(start)

    def send(self, message: ToWorker) -> None:
        """Say something; a worker that is gone does not hear it, and its end is noticed elsewhere."""
        try:
            self._connection.send(message)
        except OSError:
            self._is_open = False

    def receive(self, seconds: float, wakeup: int) -> list[FromWorker]:
        """Return what the worker said, waiting at most `seconds` for it or for the descriptor `wakeup`."""
        messages: list[FromWorker] = []
        if self._is_open:
            wait([self._connection, wakeup], seconds)
        else:
            wait([wakeup], min(seconds, 0.05))  # its end is near
        try:
            while self._is_open and self._connection.poll():
                messages.append(self._connection.recv())
        except (EOFError, OSError):
            self._is_open = False
        return messages

    @property
    def has_ended(self) -> bool:
        """Is the process gone, and everything it said heard?"""
        return not self._is_open and self._process.poll() is not None

    @property
    def is_alive(self) -> bool:
        """Does the process run?"""
        return self._process.poll() is None

    @property
    def signal(self) -> int | None:
        """The signal that ended it."""
        status = self._process.poll()
        return -status if status is not None and status < 0 else None

    def rss(self) -> int | None:
        """Return its resident memory in bytes."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return None

    def trim(self) -> None:
        """Empty what it wrote to standard error when that is too much; the end of it is what counts."""
        if os.fstat(self._stderr.fileno()).st_size > STDERR_BYTES:
            os.ftruncate(self._stderr.fileno(), 0)

    def how_it_ended(self) -> str:
        """Say how it ended, with what it last wrote to standard error."""
        number = self.signal
        if number is None:
            what = f"the worker exited with status {self._process.poll()}"
        else:
            what = f"the worker was ended by signal {number} ({signal.Signals(number).name})"
            if number == signal.SIGABRT:
                what += "; GPU memory may have run out"
            elif number == signal.SIGKILL:
                what += "; the system may have run out of memory"
        trace = self._trace()
        return f"{what}\n{trace}" if trace else what

    def abort(self) -> None:
        """End a worker that hangs; it writes the stacks of its threads first, if it still can."""
        self._signal(signal.SIGABRT)
        deadline = time.monotonic() + ABORT_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """End it now, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Release what belongs to an ended worker."""
        self._is_open = False
        self._connection.close()
        self._stderr.close()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _trace(self) -> str:
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), TRACE_BYTES, max(0, size - TRACE_BYTES)).decode(errors="replace").strip()

"""A lock that the kernel gives back when its holder dies, however it dies: flock on a file that names the holder.

Two are used: state/daemon.lock (one daemon per home) and state/worker.lock (one worker per home, even when its daemon
is dead and a new one has started). The file is never removed, only its lock matters.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rvc_batch.errors import DaemonRunning


class FileLock:
    """An exclusive lock on `path`, held between enter and exit."""

    def __init__(self, path: Path, *, wait: bool) -> None:
        self._path, self._wait = path, wait
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            DaemonRunning: it is held and `wait` is false; says by which process and since when.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
        except BlockingIOError as e:
            os.close(fd)
            holder = self._path.read_text(encoding="ascii", errors="replace").split("\n")[0]
            raise DaemonRunning(
                f"another daemon serves {self._path.parent.parent} already (process {holder}); stop that one first"
            ) from e
        os.ftruncate(fd, 0)
        started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        os.write(fd, f"{os.getpid()} since {started}\n".encode("ascii"))
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        os.close(self._fd)


def holder_of(path: Path) -> int | None:
    """Return the process that holds the lock, or None if nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = path.read_text(encoding="ascii", errors="replace").split()
        return int(text[0]) if text and text[0].isdigit() else -1
    else:
        return None
    finally:
        os.close(fd)

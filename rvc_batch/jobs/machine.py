"""What the daemon asks of its own process and of the clock: more open files, and whether the machine slept."""

from __future__ import annotations

import logging
import resource
from collections.abc import Mapping

import psutil

logger = logging.getLogger(__name__)

OPEN_FILES = 8192
SLEEP_GAP_S = 5.0  # ordinary scheduling is far below


def raise_open_files() -> int:
    """Raise the limit of open files as far as this process may, to `OPEN_FILES` at most; return what it is now.

    launchd and some shells start programs with 256. The worker inherits the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as e:
            logger.warning("the limit of open files stays at %d: %s", soft, e)
    return open_files_limit()


def open_files_limit() -> int:
    """Return how many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_files() -> int:
    """Return how many descriptors this process has open."""
    return int(psutil.Process().num_fds())


def started_by(environment: Mapping[str, str]) -> str:
    """Return which service of the system this process is, from the variables that only such a one has."""
    label = environment.get("XPC_SERVICE_NAME", "0")  # launchd gives programs of a session "0"
    if label != "0":
        return f"launchd {label}"
    return "systemd" if environment.get("INVOCATION_ID") else "a service manager"


class SleepWatch:
    """Tells that the machine slept, or its clock was set forward: wall time ran, monotonic time did not."""

    def __init__(self, monotonic: float, wall: float) -> None:
        self._offset = wall - monotonic

    def gap(self, monotonic: float, wall: float) -> float:
        """Return the seconds that passed unnoticed since the last call; 0 where that is less than `SLEEP_GAP_S`."""
        before, self._offset = self._offset, wall - monotonic
        gap = self._offset - before
        return gap if gap > SLEEP_GAP_S else 0.0

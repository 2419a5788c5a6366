"""The peak resident size of this process over one conversion, though the process lives for thousands of them.

Linux can be told to forget its high-water mark, so there the number is exact. Elsewhere the size is looked at between
tiles and the greatest is reported; what came and went inside one tile is not seen.
"""

from __future__ import annotations

from pathlib import Path

import psutil

CLEAR_PEAK = "5"  # proc(5): resets VmHWM of the process, touches nothing else
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def resident_size() -> int:
    """Return the present resident size of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


class ResidentPeak:
    """A stretch of time and the peak in it."""

    def __init__(self) -> None:
        """Begin now."""
        self._is_exact = _forget_high_water()
        self._greatest = 0
        self.look()

    def look(self) -> None:
        """Take the present size into account; needed where the system keeps no high-water mark of its own."""
        if not self._is_exact:
            self._greatest = max(self._greatest, resident_size())

    def peak(self) -> int:
        """Return the peak so far in bytes."""
        self.look()
        return _high_water() if self._is_exact else self._greatest


def _forget_high_water() -> bool:
    try:
        CLEAR_REFS.write_text(CLEAR_PEAK, encoding="ascii")
    except OSError:  # not Linux, or /proc cannot be written here
        return False
    return True


def _high_water() -> int:
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

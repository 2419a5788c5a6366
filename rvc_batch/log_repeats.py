"""Keeps a line that comes again and again from filling the log: after some in a minute the rest are counted.

The next time the line may be said, it says how often it came meanwhile. Lines that differ in anything are not equal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 60.0
BURST = 10  # equal lines in one window
MAX_LINES = 1000  # remembered; more different ones in a minute are no repetition


@dataclass
class _Line:
    since: float
    said: int = 0
    kept_back: int = 0


class Repeats(logging.Filter):
    """A filter for one handler."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._lines: dict[tuple[str, int, str], _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record through unless it was said often enough just now; note in it what was kept back."""
        now, text = self._monotonic(), record.getMessage()
        key = (record.name, record.levelno, text)
        line = self._lines.get(key)
        if line is None or now - line.since >= WINDOW_S:
            kept_back = line.kept_back if line else 0
            self._lines.pop(key, None)
            while len(self._lines) >= MAX_LINES:
                del self._lines[next(iter(self._lines))]
            line = self._lines[key] = _Line(now)
            if kept_back and not hasattr(record, "repeats"):  # the other handler's filter has said it
                record.repeats = kept_back
                record.msg, record.args = f"{text} (and {kept_back} times more since)", ()
        if line.said >= BURST:
            line.kept_back += 1
            return False
        line.said += 1
        return True


def limit_repeats(logger: logging.Logger) -> None:
    """Give every handler of a logger its filter."""
    for handler in logger.handlers:
        handler.addFilter(Repeats())

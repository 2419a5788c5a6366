"""What a check found: one line, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"

    @property
    def severity(self) -> int:
        """0, 1 or 2: the exit code of `doctor`."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    check: str
    level: Level
    what: str
    remedy: str = ""

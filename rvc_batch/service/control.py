"""What launchd and systemd have in common, seen from here: one file, and a few verbs that do not mind repetition."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rvc_batch.service.definition import Definition


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What the system knows of the service. `domain` is where; `failure` why it does not run."""

    is_registered: bool
    domain: str = ""
    pid: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class Clock:
    """Time and waiting; tests bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class Control(Protocol):
    """launchd or systemd, for one service. Every verb raises ServiceFailed if the system refuses."""

    definition: Definition
    name: str
    file: Path

    def content(self) -> bytes:
        """Return what the file must say."""

    def place(self, data: bytes) -> None:
        """Put the file in place and let the system read it."""

    def forget(self) -> None:
        """Remove the file and let the system notice."""

    def load(self) -> None:
        """Start the service, now and at every boot or login."""

    def unload(self) -> None:
        """End the service and wait until it is gone; that it never ran is fine."""

    def start(self) -> None:
        """Start the service if it does not run."""

    def stop(self) -> None:
        """End the service until the next boot, login or start."""

    def restart(self) -> None:
        """End the service and start it again."""

    def registration(self) -> Registration:
        """Ask the system."""

    def crash_lines(self, count: int) -> list[str]:
        """Return the latest lines that the daemon said outside its own log."""

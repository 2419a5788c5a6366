"""Keeps the machine awake while a job is rendered, and only then: a box that has nothing to do may sleep.

The system's own programs hold the assertion (caffeinate on macOS, systemd-inhibit on Linux) and let go of it when we
die: the first watches our process, the second ends with its standard input. Closing the lid and `sleep now` still work.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

LINGER_SECONDS = 5.0  # so that a queue of short jobs does not start a program for each
END_SECONDS = 1.0


class Awake:
    """One assertion, held or not."""

    def __init__(self, platform: str = sys.platform, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._command, self._monotonic = command_for(platform), monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._busy_at = float("-inf")
        self._is_possible = True

    def hold(self, is_busy: bool) -> None:
        """Say whether a job is being rendered; called from the daemon's main loop."""
        now = self._monotonic()
        if is_busy:
            self._busy_at = now
            if self._process is None and self._is_possible:
                self._start()
        elif self._process is not None and now - self._busy_at >= LINGER_SECONDS:
            self.release()
        if self._process is not None and self._process.poll() is not None:
            logger.info("%s ended with %s: the machine may sleep", self._command[0], self._process.returncode)
            self._is_possible = False
            self.release()

    def release(self) -> None:
        """Let the machine sleep."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def is_held(self) -> bool:
        """Is the machine kept awake?"""
        return self._process is not None

    def _start(self) -> None:
        if not self._command or shutil.which(self._command[0]) is None:
            self._is_possible = False
            logger.info("nothing here keeps the machine awake while it renders")
            return
        quiet = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
        except OSError as e:
            self._is_possible = False
            logger.warning("%s cannot be started: %s", self._command[0], e)


def command_for(platform: str) -> tuple[str, ...]:
    """Return the command that keeps this system from sleeping when nobody uses it."""
    if platform == "darwin":
        return ("caffeinate", "-i", "-w", str(os.getpid()))
    if platform == "linux":
        options = ("--what=idle", "--mode=block", "--who=rvc-batch", "--why=a voice conversion is being rendered")
        return ("systemd-inhibit", *options, "cat")
    return ()

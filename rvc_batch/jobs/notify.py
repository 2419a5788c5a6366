"""Tells systemd that the daemon is ready and that it still works: the datagram protocol of sd_notify(3).

Ready means: recovery is done, the database is open, the inbox is watched and the main loop runs. It does not mean that
a worker is warm: without a device or a model the daemon stays up and says so in `status`, and a restart by systemd
would change nothing. Without systemd nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)


class Notifier:
    """Sends READY=1 at the first beat and WATCHDOG=1 as often as systemd wants it."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = int(environment.get("WATCHDOG_USEC", "0")) if watched else 0
        self._interval = usec / 1e6 / 4  # three of four may be late
        self._monotonic = monotonic
        self._is_ready = False
        self._next = 0.0

    def beat(self) -> None:
        """Say that the daemon works; called from its main loop."""
        now = self._monotonic()
        if not self._is_ready:
            self._is_ready = True
            self._send("READY=1")
        if self._interval and now >= self._next:
            self._next = now + self._interval
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.setblocking(False)  # a full queue must not hold up the main loop
                link.sendto(message.encode(), address)
        except OSError as e:
            logger.warning("systemd cannot be told %s: %s", message, e)

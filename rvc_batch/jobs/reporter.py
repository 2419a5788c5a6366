"""Tells others what the box does, beside its work: hooks from the outbox, and the metrics file.

A thread of the daemon. Whatever happens here, a slow target, a full table, a disk that is gone, is logged and tried
again; no job waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from rvc_batch.config import HookSettings, Settings
from rvc_batch.errors import HookFailed, RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs.hooks import CALL_SECONDS, call
from rvc_batch.jobs.metrics import metrics_text, read_metrics
from rvc_batch.jobs.notices import Batch, Notices
from rvc_batch.jobs.reading import QueueReader

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

Call = Callable[[HookSettings, Batch, Home], None]


class Reporter:
    """Hooks and metrics of one daemon."""

    def __init__(
        self,
        home: Home,
        settings: Callable[[], Settings],
        notices: Notices,
        *,
        call: Call = call,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._settings, self._notices, self._call = home, settings, notices, call
        self._clock, self._monotonic = clock, monotonic
        self._next_metrics = float("-inf")
        self._stop = threading.Event()
        self._deadline = float("inf")  # monotonic; no call begins after it
        self._thread = threading.Thread(target=self._run, name="reporter")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Tell what there is to tell once more, for a few seconds, and end; the rest is told after the next start."""
        self._deadline = self._monotonic() + CALL_SECONDS
        self._stop.set()
        self._thread.join()

    def report(self) -> None:
        """Tell all that is due now; never raises."""
        settings = self._settings()
        try:
            self._notices.collect(settings.hooks)
            if settings.hooks:
                hooks = {hook.key: hook for hook in settings.hooks}
                for batch in self._notices.due():
                    if batch.hook in hooks and self._monotonic() < self._deadline:
                        self._tell(hooks[batch.hook], batch)
            self._write_metrics(settings)
        except (RvcBatchError, OSError) as e:
            logger.warning("hooks and metrics wait: %s", e)
        except Exception:
            logger.exception("hooks and metrics go on after an unexpected error")

    def _run(self) -> None:
        while not self._stop.is_set():
            self.report()
            self._stop.wait(LOOK_SECONDS)
        self.report()

    def _tell(self, hook: HookSettings, batch: Batch) -> None:
        try:
            self._call(hook, batch, self._home)
        except HookFailed as e:
            given_up = self._notices.refused(batch, str(e))
            logger.warning("hook %s: %s%s", hook.key, e, f"; {given_up} events are given up" if given_up else "")
        else:
            self._notices.told(batch)
            logger.info("hook %s: told %d × %s", hook.key, len(batch.rows), batch.event)

    def _write_metrics(self, settings: Settings) -> None:
        if not settings.metrics.textfile or self._monotonic() < self._next_metrics:
            return
        self._next_metrics = self._monotonic() + settings.metrics.every_seconds
        with closing(QueueReader.open_readonly(self._home.database, clock=self._clock)) as reader:
            text = metrics_text(read_metrics(self._home, reader, now=self._clock()))
        durable.write_whole(Path(settings.metrics.textfile).expanduser(), text.encode(), durable=False)

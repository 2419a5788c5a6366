"""Ends crash loops: counts the starts of the service that did not last, and gives up after five in quick succession.

launchd restarts for ever, so the daemon counts for itself. A start counts when it begins, not when it fails, because
one that is killed says nothing; it stops counting once the daemon has served for a minute or ended on purpose. The
record is `state/last_start_error.json`. Only `run --service` counts: in a terminal every start is a new try.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rvc_batch.errors import RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs import durable

logger = logging.getLogger(__name__)

FILE_NAME = "last_start_error.json"
VERSION = 1
MAX_STARTS = 5
SERIES_GAP_S = 120.0  # between two starts of one series: launchd waits 30 s, and a start may take a minute
STEADY_S = 60.0  # a daemon that served this long has started


@dataclass(frozen=True, kw_only=True)
class LastStart:
    """The latest start that has not lasted yet. `message` is empty until it is known to have failed."""

    starts: int
    started_at: float
    pid: int
    code: str = ""
    message: str = ""
    has_given_up: bool = False

    def sentence(self) -> str:
        """Say what became of it."""
        if self.has_given_up:
            return f"the service gave up after {self.starts} failed starts: {self.code}: {self.message}"
        if self.message:
            return f"start {self.starts} of the service failed: {self.code}: {self.message}"
        import psutil  # status need not load it when all is well

        if psutil.pid_exists(self.pid):
            return f"the service is starting (pid {self.pid})"
        return f"start {self.starts} of the service (pid {self.pid}) ended without a word"


class Starts:
    """Counts the starts of the service of one home."""

    def __init__(
        self,
        home: Home,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._clock, self._monotonic = home.state / FILE_NAME, clock, monotonic
        self._began = monotonic()
        self._is_counted = False

    def run(self, serve: Callable[[], None]) -> None:
        """Serve as one counted start; return, so that nobody restarts us, when it is time to give up.

        Raises:
            Exception: whatever `serve` raised, while there are starts left.
        """
        now, last = self._clock(), _read(self._path)
        is_series = last is not None and not last.has_given_up and abs(now - last.started_at) < SERIES_GAP_S
        count = last.starts if last is not None and is_series else 0
        if last is not None and count >= MAX_STARTS:  # the last one was killed before it could give up itself
            self._give_up(last)
            return
        start = LastStart(starts=count + 1, started_at=now, pid=os.getpid())
        self._write(start)
        self._began, self._is_counted = self._monotonic(), True
        try:
            serve()
        except Exception as e:
            if not self._is_counted:  # it has served for long; this is a crash, not a failed start
                raise
            code = e.code if isinstance(e, RvcBatchError) else RvcBatchError.code
            failed = replace(start, code=code, message=str(e) or type(e).__name__)
            if failed.starts < MAX_STARTS:
                self._write(failed)
                raise
            logger.exception("start %d failed", failed.starts)
            self._give_up(failed)
        else:
            self._clear()

    def beat(self) -> None:
        """Say that the daemon serves; called from its main loop."""
        if self._is_counted and self._monotonic() - self._began >= STEADY_S:
            self._clear()

    def _give_up(self, last: LastStart) -> None:
        code, message = last.code or RvcBatchError.code, last.message or "it ended without a word, as if killed"
        given_up = replace(last, code=code, message=message, has_given_up=True)
        self._write(given_up)
        logger.error("%s", given_up.sentence())

    def _clear(self) -> None:
        self._is_counted = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError as e:
            logger.warning("%s cannot be removed: %s", self._path, e)

    def _write(self, record: LastStart) -> None:
        try:
            durable.write_whole(self._path, json.dumps({"version": VERSION} | asdict(record)).encode(), durable=False)
        except OSError as e:  # no state folder, no count: it is a missing volume, and worth another start
            logger.error("this start cannot be counted: %s", e)


def read_last_start(home: Home) -> LastStart | None:
    """Return the record of the latest start that did not last, or None."""
    return _read(home.state / FILE_NAME)


def _read(path: Path) -> LastStart | None:
    try:
        record = json.loads(path.read_bytes())
        if record.pop("version") != VERSION:
            return None
        return LastStart(**record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        logger.warning("%s cannot be read (%s); the count of starts begins anew", path, e)
        return None

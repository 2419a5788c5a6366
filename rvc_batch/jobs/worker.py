"""The worker process, `python -m rvc_batch.jobs.worker`: loads the models once, then renders job after job.

It has no database and publishes nothing. It hears of jobs over a pipe and answers with a verified, durable file under
a temporary name; the daemon does the rest. So its death at any moment loses at most one attempt of one job, a locked
database can never cost a finished render, and one process alone writes the database (two that checkpoint can corrupt
SQLite before 3.51.3). A listener thread ends the process as soon as the pipe closes: it never outlives its daemon.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from rvc_batch.engine.types import ConversionReport
from rvc_batch.errors import FolderGone, LeaseLost, RvcBatchError, SourceChanged, SourceGone, Stopped
from rvc_batch.home import Home
from rvc_batch.jobs import durable, publish
from rvc_batch.jobs.failpoints import RENDER_STARTED, failpoint
from rvc_batch.jobs.lock import FileLock
from rvc_batch.jobs.messages import (
    Assignment,
    Cancel,
    Failed,
    FromWorker,
    Halted,
    LogLine,
    Progressed,
    Ready,
    Rendered,
    Start,
    StartFailed,
    Stop,
    Warming,
)
from rvc_batch.jobs.models import JobError
from rvc_batch.jobs.renderer import Renderer, factory_named

if TYPE_CHECKING:
    from rvc_batch.engine.converter import Progress

logger = logging.getLogger(__name__)

WORKER_LOCK = "worker.lock"
EXIT_START_FAILED = 3
EXIT_ORPHANED = 4
PROGRESS_SECONDS = 0.25  # between two words about the same stage
MACHINE_FAULTS = (*durable.FULL, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO)
TRACEBACK_CHARS = 8000


def main() -> int:
    """Serve the daemon behind the pipe whose descriptor is the only argument; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the daemon's to handle
    faulthandler.enable()
    return Worker(Connection(int(sys.argv[1]))).serve()


class Worker:
    """One life of the worker process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[Assignment | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._cancelled: set[int] = set()  # claim numbers
        self._stage = ""
        self.job_id: int | None = None  # being rendered
        self._said: tuple[float, str] = (float("-inf"), "")

    def serve(self) -> int:
        """Open the engine, render jobs until told to stop; return the exit status."""
        start = self._connection.recv()
        assert isinstance(start, Start)
        home = Home(start.home)
        self._log_over_the_pipe(start.log_level)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        with FileLock(home.state / WORKER_LOCK, wait=True):
            try:
                renderer = factory_named(start.engine)(home, start.settings)
                self._send(Warming())
                renderer.warm_up()
            except Exception as e:
                self._send(StartFailed(_recorded(e, "start")))
                return EXIT_START_FAILED
            self._send(Ready(renderer.device, renderer.backend, renderer.warm_voices(), renderer.memory()))
            while (job := self._jobs.get()) is not None:
                self.job_id = job.job_id
                self._send(self._run_once(renderer, job))
                self.job_id = None
        return 0

    def _run_once(self, renderer: Renderer, job: Assignment) -> FromWorker:
        """Render one job and say what became of it; nothing it raises ends the process."""
        self._stage = "load"
        try:
            failpoint(RENDER_STARTED)
            report = self._render(renderer, job)
            self._stage = "publish"
            self._send(Progressed(job.claim_no, self._stage, report.seconds_in, report.seconds_in, renderer.memory()))
            sealed = publish.seal(job.target, report)
            return Rendered(job.claim_no, sealed, report, renderer.warm_voices(), renderer.memory())
        except (Stopped, LeaseLost):
            _remove(job.target)
            return Halted(job.claim_no)
        except Exception as e:
            _remove(job.target)
            error = _named(e, job.target.parent)
            if type(error) is RvcBatchError:
                logger.exception("job %d: unexpected error", job.job_id)
            return Failed(job.claim_no, _recorded(error, self._stage), error.retry)

    def _render(self, renderer: Renderer, job: Assignment) -> ConversionReport:
        before = _mark(job.source)
        self._check(job.claim_no)
        report = renderer.render(
            job.source,
            job.target,
            voice=job.voice,
            settings=job.settings,
            progress=lambda p: self._progress(renderer, job.claim_no, p),
        )
        if _mark(job.source) != before:
            raise SourceChanged(
                f"{job.source.name} was still being written while it was rendered; it is rendered again"
            )
        return report

    def _progress(self, renderer: Renderer, claim_no: int, progress: Progress) -> None:
        self._check(claim_no)
        self._stage = progress.stage
        said_at, said_stage = self._said
        if progress.stage != said_stage or time.monotonic() - said_at >= PROGRESS_SECONDS:
            done, total = progress.seconds_done, progress.seconds_total
            self._send(Progressed(claim_no, progress.stage, done, total, renderer.memory()))
            self._said = (time.monotonic(), progress.stage)

    def _check(self, claim_no: int) -> None:
        if self._stopping.is_set():
            raise Stopped("the service is stopping")
        if claim_no in self._cancelled:
            raise Stopped("the job was cancelled")

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(EXIT_ORPHANED)  # the daemon is gone; what it does not know of must not go on
            if isinstance(message, Assignment):
                self._jobs.put(message)
            elif isinstance(message, Cancel):
                self._cancelled.add(message.claim_no)
            elif isinstance(message, Stop):
                self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._jobs.put(None)

    def _send(self, message: FromWorker) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(EXIT_ORPHANED)

    def _log_over_the_pipe(self, level: int) -> None:
        root = logging.getLogger()
        root.handlers[:] = [_PipeHandler(self)]
        root.setLevel(level)

    def forward(self, record: LogLine) -> None:
        """Hand a log record to the daemon."""
        self._send(record)


class _PipeHandler(logging.Handler):
    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.forward(LogLine(record.name, record.levelno, self.format(record), self._worker.job_id))


def _named(error: Exception, folder: Path) -> RvcBatchError:
    """Return an error of ours for whatever a conversion raised."""
    if isinstance(error, RvcBatchError):
        return error
    if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
        return durable.environment_fault(error, folder)
    if not folder.is_dir():  # whatever a codec makes of it: the volume was pulled out
        return FolderGone(f"{folder} is gone ({error}); bring it back, work resumes by itself")
    return RvcBatchError(f"unexpected {type(error).__name__}: {error}").with_traceback(error.__traceback__)


def _recorded(error: Exception, stage: str) -> JobError:
    text = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
    known = error if isinstance(error, RvcBatchError) else None
    message = str(error) if known else f"unexpected {type(error).__name__}: {error}"
    code = (known or RvcBatchError).code
    return JobError(code=code, message=message, stage=stage, type=type(error).__name__, traceback=text)


def _mark(source: Path) -> tuple[int, int, int]:
    try:
        found = source.stat()
    except FileNotFoundError as e:
        raise SourceGone(f"{source.name} is not in {source.parent} any more; drop it again") from e
    return found.st_size, found.st_mtime_ns, found.st_ino


def _remove(temp: Path) -> None:
    with contextlib.suppress(OSError):
        temp.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())

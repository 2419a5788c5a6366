"""The one job in progress, from its claim to the last word written about it.

What the worker reports becomes an *ending*: a call that records it. An ending is kept until the database has taken
it, so a locked or full database delays a result and never loses one. Only the daemon's main thread comes here.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.errors import FolderGone, LeaseLost, RvcBatchError
from rvc_batch.home import Home
from rvc_batch.jobs import durable, publish
from rvc_batch.jobs.failpoints import CLAIM_PREPARED, CLAIM_TAKEN, PUBLISH_HEARD, failpoint
from rvc_batch.jobs.messages import Assignment, Failed, Halted, Progressed, Rendered
from rvc_batch.jobs.models import TERMINAL, Job, JobError
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.request import Choices, Request, has_sidecar, read_again
from rvc_batch.jobs.sources import Sources

logger = logging.getLogger(__name__)

JobWord = Progressed | Rendered | Failed | Halted


@dataclass
class _Running:
    """The claimed job, and how far the worker is."""

    job: Job
    temp: Path
    stage: str = "load"
    done: float = 0.0
    total: float = 0.0
    is_again: bool = False  # it was tried to deliver it before
    cancelled: bool = False  # the worker was told to stop it
    lost: bool = False  # another claim owns it now


class Desk:
    """Claims one job at a time and records how it ends."""

    def __init__(
        self,
        home: Home,
        queue: Queue,
        sources: Sources,
        *,
        choices: Callable[[], Choices],
        check_outbox: Callable[[], None],
        lease_seconds: float,
    ) -> None:
        self._check_outbox = check_outbox
        self._home, self._queue, self._sources, self._choices = home, queue, sources, choices
        self._lease = lease_seconds
        self._running: _Running | None = None
        self._ending: Callable[[], Job | None] | None = None

    @property
    def is_empty(self) -> bool:
        """Is there no job, and nothing left to write down?"""
        return self._running is None

    @property
    def is_ending(self) -> bool:
        """Has the worker finished with the job, which is not written down yet?"""
        return self._ending is not None

    @property
    def job_id(self) -> int | None:
        """The job in progress."""
        return self._running.job.id if self._running else None

    def take(self, worker_id: str, *, pid: int, warm_voice: str | None) -> Assignment | None:
        """Claim the next job and return what the worker needs, or None.

        Raises:
            EnvironmentFault: the database cannot be written.
        """
        assert self._running is None, "one job at a time"
        job = self._queue.claim(worker_id, pid=pid, lease_seconds=self._lease, warm_voice=warm_voice)
        if job is None:
            return None
        failpoint(CLAIM_TAKEN)
        self._running = _Running(job, publish.temp_path(self._home.outbox, job))
        try:
            source = self._sources.fetch(job)
            request = self._request_of(job, source)
            self._check_outbox()
            if publish.confirm_published(self._home.outbox, job):
                logger.info("job %d: found published, done", job.id)
                self._ending = lambda: self._queue.finish_published(job)
                self.write()
                return None
            publish.prepare(self._home.outbox, job)
            failpoint(CLAIM_PREPARED)
        except (RvcBatchError, OSError) as e:
            fault = e if isinstance(e, RvcBatchError) else durable.environment_fault(e, self._home.outbox)
            self._fail(job, fault, "fetch")
            self.write()
            return None
        logger.info(
            "job %d: attempt %d of %d, %s with voice %s",
            *(job.id, job.attempt, job.max_attempts, job.source_name, request.voice),
        )
        return Assignment(job.id, job.claim_no, source, self._running.temp, request.voice, request.settings)

    def hear(self, word: JobWord) -> None:
        """Note what the worker says of the job; a late word about an earlier claim is ignored."""
        running = self._running
        if running is None or word.claim_no != running.job.claim_no:
            return
        match word:
            case Progressed():
                if word.stage != running.stage:
                    logger.info("job %d: %s", running.job.id, word.stage)
                running.stage, running.done, running.total = word.stage, word.done, word.total
            case Rendered():
                self._ending = lambda: self._deliver(running, word)
            case Failed():
                logger.error("job %d: %s %s", running.job.id, word.error.code, word.error.message)
                self._ending = lambda: self._queue.fail(running.job, word.error, retry=word.retry)
            case Halted():
                self._ending = lambda: self._halted(running)

    def worker_crashed(self, *, signal: int | None, how: str) -> None:
        """Note that the worker died; a result it had already handed over still counts."""
        running = self._running
        if running is not None and self._ending is None:
            job = running.job
            self._ending = lambda: self._queue.crashed(job.id, job.claim_no, signal=signal, message=how)

    def worker_stopped(self) -> None:
        """Note that the worker ended because we asked it to."""
        running = self._running
        if running is not None and self._ending is None:
            self._ending = lambda: self._halted(running)

    def beat(self) -> int | None:
        """Extend the lease; return the claim that the worker must stop, if it must.

        Raises:
            EnvironmentFault: the database cannot be written.
        """
        running = self._running
        if running is None or running.lost or self._ending is not None:
            return None
        beat = self._queue.heartbeat(
            running.job,
            lease_seconds=self._lease,
            stage=running.stage,
            progress_done=running.done,
            progress_total=running.total,
        )
        if (beat.alive and not beat.cancel_requested) or running.cancelled:
            return None
        running.lost, running.cancelled = not beat.alive, True
        logger.info("job %d: %s", running.job.id, "cancelled" if beat.alive else "taken over by another claim")
        return running.job.claim_no

    def write(self) -> None:
        """Write down how the job ended, if it has.

        Raises:
            EnvironmentFault: the database cannot be written; nothing is lost, call again.
        """
        running, ending = self._running, self._ending
        if running is None or ending is None:
            return
        try:
            job = ending()
        except LeaseLost as e:
            logger.warning("job %d: %s", running.job.id, e)
            job = None
        self._running = self._ending = None
        try:
            running.temp.unlink(missing_ok=True)
        except OSError as e:
            logger.warning("job %d: %s stays until the next start: %s", running.job.id, running.temp, e)
        if job is not None:
            logger.info("job %d: %s", job.id, job.state)
            if job.state in TERMINAL:
                self._sources.settle(job)

    def _deliver(self, running: _Running, rendered: Rendered) -> Job:
        """Publish a result; if the outbox cannot be written, give the job back and let the queue wait."""
        report, job = rendered.report, running.job
        failpoint(PUBLISH_HEARD)
        if running.is_again:  # the call that failed may have reserved another name; the fence is that of our own claim
            job = dataclasses.replace(job, output_rel=self._queue.get(job.id).output_rel)
        running.is_again = True
        try:
            self._check_outbox()
            done = publish.deliver(
                self._queue, self._home.outbox, job, running.temp, sealed=rendered.sealed, report=report
            )
        except (FolderGone, OSError) as e:
            fault = e if isinstance(e, FolderGone) else durable.environment_fault(e, self._home.outbox)
            logger.error("job %d: %s %s", job.id, fault.code, fault)
            return self._queue.fail(job, _recorded(fault, "publish"), retry=fault.retry)
        logger.info(
            "job %d: %.1f s of audio at %.1fx realtime, %s",
            *(job.id, report.seconds_in, report.realtime_factor, publish.output_path(self._home.outbox, done)),
        )
        return done

    def _halted(self, running: _Running) -> Job | None:
        if running.lost:
            return None
        if running.cancelled:
            return self._queue.mark_cancelled(running.job)
        return self._queue.interrupt(running.job)

    def _fail(self, job: Job, fault: RvcBatchError, stage: str) -> None:
        logger.error("job %d: %s %s", job.id, fault.code, fault)
        self._ending = lambda: self._queue.fail(job, _recorded(fault, stage), retry=fault.retry)

    def _request_of(self, job: Job, source: Path) -> Request:
        """Read the settings file again: it may have been put right before a retry.

        Raises:
            SidecarInvalid, RecipeInvalid, VoiceUnknown, VoiceNotChosen: see `read_again`.
        """
        if job.voice and not has_sidecar(source):
            return Request(job.voice, job.settings)
        choices = dataclasses.replace(self._choices(), settings=job.settings)
        return read_again(source, job.source_rel, job.voice, choices)


def _recorded(error: RvcBatchError, stage: str) -> JobError:
    return JobError(code=error.code, message=str(error), stage=stage, type=type(error).__name__)

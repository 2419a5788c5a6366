"""A complete file becomes a job: hash, row `ingesting`, atomic move to state/work/<public id>/, `queued`.

The row is committed before the file moves, and the file has moved before the row says so; whichever step a crash
hits, `resume` finds row and file and goes on. The inbox is never read by anything that runs later, so a producer can
reuse its names at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import (
    EnvironmentFault,
    InputEmpty,
    InputTruncated,
    InputUnreadable,
    RvcBatchError,
    SourceChanged,
    SourceGone,
)
from rvc_batch.home import Home
from rvc_batch.jobs import containers, durable, publish, volumes
from rvc_batch.jobs.arrival import Look
from rvc_batch.jobs.containers import Completeness, Container
from rvc_batch.jobs.failpoints import (
    INGEST_FOLDER,
    INGEST_HASHED,
    INGEST_MOVED,
    INGEST_QUEUED,
    INGEST_SETTLED,
    INGEST_SUBMITTED,
    INGEST_TAKEN,
    failpoint,
)
from rvc_batch.jobs.models import TERMINAL, Job, JobError, JobState, NewJob
from rvc_batch.jobs.output_names import display_name
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.request import Choices, Request, output_rel, read_request
from rvc_batch.jobs.sources import Sources, companions, renamed

logger = logging.getLogger(__name__)

STAGE = "ingest"


class Ingest:
    """Turns files of the inbox into jobs."""

    def __init__(
        self, home: Home, queue: Queue, sources: Sources, *, choices: Callable[[], Choices], max_attempts: int
    ) -> None:
        self._home, self._queue, self._sources = home, queue, sources
        self._choices = choices
        self._max_attempts = max_attempts
        self._stranded: dict[int, Job] = {}  # `ingesting` rows left behind when the machine was at fault

    def adopt(self, job: Job) -> None:
        """Take over a row that an earlier life left `ingesting`; the next `resume` goes on with it."""
        self._stranded[job.id] = job

    def resume(self) -> None:
        """Go on with files whose ingestion was interrupted by a crash or by the machine; call before accepting more.

        Raises:
            EnvironmentFault: the machine is still at fault.
        """
        for job in list(self._stranded.values()):
            try:
                self._recover(job)
            except (InputUnreadable, SourceGone) as e:
                logger.error("job %d: %s", job.id, e)  # the job has failed and says why
            except OSError as e:
                reason = InputUnreadable(f"the accepted copy of {job.source_name} cannot be read ({e.strerror})")
                logger.error("job %d: %s", job.id, reason)
                self._queue.reject(job.id, _recorded(reason), actor="recovery")
            del self._stranded[job.id]

    def accept(self, rel: bytes, look: Look, container: Container) -> Job:
        """Take a complete file. A file nothing can be done with becomes a failed job with the reason.

        Raises:
            SourceChanged: it changed since `look`; it must settle again.
            InputUnreadable: it cannot be moved out of the inbox, where it stays.
            EnvironmentFault: the machine is at fault; try again later.
        """
        return self._take(rel, look, container.seconds, None)

    def refuse(self, rel: bytes, look: Look, error: RvcBatchError) -> Job:
        """Take a file that will never be complete, as a failed job.

        Raises:
            as `accept`.
        """
        return self._take(rel, look, None, error)

    def _take(self, rel: bytes, look: Look, seconds: float | None, error: RvcBatchError | None) -> Job:
        path = self._inbox_path(rel)
        failpoint(INGEST_SETTLED)
        sha256 = _hash_unchanged(path, look)
        failpoint(INGEST_HASHED)
        request = error or self._request_of(path, rel)
        wanted = Request("", self._choices().settings) if isinstance(request, RvcBatchError) else request
        job = self._queue.submit(
            NewJob(
                source_name=display_name(rel),
                source_rel=rel,
                size=look.size,
                mtime_ns=look.mtime_ns,
                device=look.device,
                inode=look.inode,
                content_sha256=sha256,
                voice=wanted.voice,
                settings=wanted.settings,
                output_rel=self._output_rel(rel, wanted.settings),
                max_attempts=self._max_attempts,
                seconds_in=seconds,
            ),
            taken=lambda name: publish.is_taken(self._home.outbox, name),
        )
        failpoint(INGEST_SUBMITTED)
        try:
            self._move(job, path)
            return self._admit(job, request)
        except EnvironmentFault:
            self._stranded[job.id] = job
            raise

    def _recover(self, job: Job) -> None:
        source = self._sources.path(job)
        inbox_file = self._inbox_path(job.source_rel)
        if not source.is_file():
            if not self._is_source(inbox_file, job):
                self._sources.check_inbox()
                self._queue.reject(job.id, _recorded(_gone(job)), actor="recovery")
                return
            self._move(job, inbox_file)
        else:
            if self._is_source(inbox_file, job):
                inbox_file.unlink()  # copied from another volume by a run that died before it removed the original
            self._bring_companions(job, inbox_file)
        logger.info("job %d: %s accepted after a restart", job.id, job.source_name)
        self._admit(job, self._fault_of(source) or self._request_of(source, job.source_rel))

    def _admit(self, job: Job, request: Request | RvcBatchError) -> Job:
        """Queue a job whose file is in place, or fail it for the reason found."""
        failpoint(INGEST_MOVED)
        if job.state is JobState.DUPLICATE:
            logger.info("job %d: %s is at work already as job %s", job.id, job.source_name, job.duplicate_of)
        elif isinstance(request, RvcBatchError):
            job = self._queue.reject(job.id, _recorded(request))
            logger.info("job %d: %s refused: %s %s", job.id, job.source_name, request.code, request)
        else:
            job = self._queue.enqueue(job.id)
            failpoint(INGEST_QUEUED)
            logger.info("job %d: %s %s for voice %s", job.id, job.source_name, job.state, job.voice)
        if job.state in TERMINAL:
            self._sources.settle(job)
        return job

    def _move(self, job: Job, path: Path) -> None:
        """Move a file and what belongs to it into the job's work folder; both names survive power loss.

        Raises:
            InputUnreadable, SourceGone: it cannot be moved; the job has failed and the file is where it was.
            EnvironmentFault: the work folder cannot be written.
        """
        source = self._sources.path(job)
        try:
            self._sources.open_folder(job)
        except OSError as e:
            raise durable.environment_fault(e, self._home.work) from e
        failpoint(INGEST_FOLDER)
        try:
            _rename(path, source)
        except OSError as e:
            if e.errno in durable.FULL:
                raise durable.environment_fault(e, self._home.work) from e
            raise self._unmovable(job, path, e) from e
        failpoint(INGEST_TAKEN)
        self._bring_companions(job, path)

    def _bring_companions(self, job: Job, path: Path) -> None:
        """Let what belongs to a file that is in its work folder follow it there; make all of it durable.

        Where another file of that name has been dropped since, what lies beside it is that one's.

        Raises:
            EnvironmentFault: it cannot be made durable.
        """
        source = self._sources.path(job)
        for companion in () if os.path.lexists(path) else companions(path.parent, path.name):
            with contextlib.suppress(OSError):  # it is gone again; the audio is what counts
                _rename(companion, source.with_name(renamed(companion.name, path.name, source.name)))
        try:
            durable.sync_folder(source.parent)
            with contextlib.suppress(FileNotFoundError):  # a producer removed its folder, now that it is empty
                durable.sync_folder(path.parent)
        except OSError as e:
            raise durable.environment_fault(e, self._home.work) from e

    def _unmovable(self, job: Job, path: Path, error: OSError) -> RvcBatchError:
        """Fail a job whose file stays in the inbox.

        Raises:
            FolderGone: the whole inbox went away, not this file.
        """
        self._sources.check_inbox()
        reason: RvcBatchError = _gone(job)
        if error.errno != errno.ENOENT:
            reason = InputUnreadable(
                f"{path.name} cannot be moved out of the inbox ({error.strerror}); make the file and its folder "
                "writable for the service"
            )
        if job.state is JobState.INGESTING:
            self._sources.settle(self._queue.reject(job.id, _recorded(reason)))
        return reason

    def _request_of(self, source: Path, rel: bytes) -> Request | RvcBatchError:
        try:
            return read_request(source, rel, self._choices())
        except RvcBatchError as e:
            return e

    def _fault_of(self, source: Path) -> RvcBatchError | None:
        """Look again for what `refuse` was called for before the restart."""
        with source.open("rb") as file:
            size = source.stat().st_size
            container = containers.inspect(file, size)
        if size == 0:
            return InputEmpty(f"{source.name} has zero bytes")
        return truncated(source.name, container) if container.completeness is Completeness.SHORT else None

    def _is_source(self, path: Path, job: Job) -> bool:
        try:
            found = path.lstat()
            same_size = stat.S_ISREG(found.st_mode) and found.st_size == job.source_size
            return same_size and durable.digest(path)[0] == job.content_sha256
        except OSError:
            return False

    def _output_rel(self, rel: bytes, settings: ConversionSettings) -> bytes:
        """Return the wanted path below the outbox, in names that its volume takes."""
        wanted = output_rel(rel, settings)
        if volumes.refuses_names(self._home.outbox) and volumes.acceptable(wanted) != wanted:
            logger.warning("%s holds characters that the volume of the outbox refuses; `_` replaces them", wanted)
            return volumes.acceptable(wanted)
        return wanted

    def _inbox_path(self, rel: bytes) -> Path:
        return self._home.inbox / os.fsdecode(rel)


def truncated(name: str, container: Container) -> InputTruncated:
    """Return the error for a file that stopped growing before it was complete."""
    return InputTruncated(f"{name} is not complete: {container.shortfall}; copy it again")


def _recorded(error: RvcBatchError) -> JobError:
    return JobError(code=error.code, message=str(error), stage=STAGE, type=type(error).__name__)


def _hash_unchanged(path: Path, look: Look) -> str:
    """Hash a file that must be what was looked at, before and after.

    Raises:
        SourceChanged: it is not.
    """
    try:
        fd = os.open(path, durable.READ_ONLY)
    except OSError as e:
        raise SourceChanged(f"{path.name} cannot be opened any more ({e.strerror}); it is looked at again") from e
    with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        sha = hashlib.sha256()
        is_same = _matches(os.fstat(fd), look)
        while is_same and (block := file.read(durable.BLOCK_BYTES)):
            sha.update(block)
        is_same = is_same and _matches(os.fstat(fd), look)
    if not is_same:
        raise SourceChanged(f"{path.name} changed while it was read; it settles again")
    return sha.hexdigest()


def _matches(found: os.stat_result, look: Look) -> bool:
    return stat.S_ISREG(found.st_mode) and (
        (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)
        == (look.size, look.mtime_ns, look.ctime_ns, look.device, look.inode)
    )


def _gone(job: Job) -> SourceGone:
    return SourceGone(f"{job.source_name} disappeared from the inbox while it was accepted; drop it again")


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        durable.link_or_copy(source, target)
        source.unlink()
    else:
        if _is_one_file(source, target):  # left by power loss in mid-move; then a rename does nothing, by POSIX
            source.unlink()


def _is_one_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False

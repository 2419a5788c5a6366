"""A complete file becomes a job: hash, row `ingesting`, atomic move to state/work/<public id>/, `queued`.

The row is committed before the file moves, and the file has moved before the row says so; whichever step a crash
hits, `resume` finds row and file and goes on. The inbox is never read by anything that runs later, so a producer can
reuse its names at once.

A file that several voices are asked for becomes a job for each, all in one transaction. All but the last get the file
as a second name, which is made durable before the last one moves it: what is missing is still in the inbox.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.engine import containers
from rvc_batch.engine.containers import Completeness, Container
from rvc_batch.errors import (
    EnvironmentFault,
    InputEmpty,
    InputUnreadable,
    RvcBatchError,
    SourceChanged,
    SourceGone,
)
from rvc_batch.home import Home
from rvc_batch.jobs import durable, publish, volumes
from rvc_batch.jobs.arrival import Complete, Look
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
from rvc_batch.jobs.request import Choices, Request, output_rel, read_requests
from rvc_batch.jobs.sources import Sources, companions, renamed

logger = logging.getLogger(__name__)

OF_THE_MACHINE = (*durable.FULL, errno.EIO)  # errors of a move that say nothing of the file

STAGE = "ingest"


@dataclass(frozen=True)
class _Offer:
    """A file of the inbox that has settled."""

    rel: bytes
    look: Look
    seconds: float | None
    refusal: RvcBatchError | None


@dataclass(frozen=True)
class _Read:
    """A file that was hashed, with a job for each voice that is asked for, or the reason why it will fail."""

    path: Path
    new: Sequence[NewJob]
    refusal: RvcBatchError | None


@dataclass
class _Taking:
    """A file that has a row, on its way from the inbox into the queue.

    is_variant: other jobs are made of the same file. is_shared: one of them comes later and still needs it.
    """

    job: Job
    path: Path
    refusal: RvcBatchError | None
    is_variant: bool = False
    is_shared: bool = False
    outcome: Job | RvcBatchError | None = None

    @property
    def result(self) -> Job | RvcBatchError:
        assert self.outcome is not None, "every file has an outcome by now"
        return self.outcome

    @property
    def is_to_be_queued(self) -> bool:
        return self.job.state is not JobState.DUPLICATE and self.refusal is None


class Ingest:
    """Turns files of the inbox into jobs."""

    def __init__(
        self, home: Home, queue: Queue, sources: Sources, *, choices: Callable[[], Choices], max_attempts: int
    ) -> None:
        self._home, self._queue, self._sources = home, queue, sources
        self._choices = choices
        self._max_attempts = max_attempts
        self._stranded: dict[int, Job] = {}  # `ingesting` rows left behind when the machine was at fault
        self._variants = set[int]()  # those of them whose file has other jobs

    def adopt(self, job: Job) -> None:
        """Take over a row that an earlier life left `ingesting`; the next `resume` goes on with it."""
        siblings = [other.id for other in self._stranded.values() if _is_sibling(other, job)]
        self._variants.update([*siblings, job.id] if siblings else [])
        self._stranded[job.id] = job

    def resume(self) -> None:
        """Go on with files whose ingestion was interrupted by a crash or by the machine; call before accepting more.

        Raises:
            EnvironmentFault: the machine is still at fault.
        """
        for job in list(self._stranded.values()):
            try:
                self._recover(job)
            except OSError as e:
                reason = InputUnreadable(f"the accepted copy of {job.source_name} cannot be read ({e.strerror})")
                logger.error("job %d: %s", job.id, reason)
                self._queue.reject(job.id, _recorded(reason), actor="recovery")
            del self._stranded[job.id]
            self._variants.discard(job.id)

    def accept_all(self, files: Sequence[Complete]) -> list[Job | RvcBatchError]:
        """Take complete files. They share every transaction and every wait for the disk; each step is done for all.

        A file nothing can be done with becomes a failed job with the reason.

        Returns:
            for each file its job (the first, if it has several), or why it is no job and still in the inbox:
            SourceChanged (it must settle again), InputUnreadable (it cannot be moved), SourceGone.

        Raises:
            EnvironmentFault: the machine is at fault. Files that have a row go on with `resume`, the others are still
                in the inbox; try again later.
        """
        return self._take([_Offer(file.rel, file.look, file.container.seconds, None) for file in files])

    def accept(self, rel: bytes, look: Look, container: Container) -> Job:
        """Take one complete file.

        Raises:
            as `accept_all`, and what it returns where there is no job.
        """
        return _only(self.accept_all([Complete(rel, look, container)]))

    def refuse(self, rel: bytes, look: Look, error: RvcBatchError) -> Job:
        """Take a file that will never be complete, as a failed job.

        Raises:
            as `accept`.
        """
        return _only(self._take([_Offer(rel, look, None, error)]))

    def _take(self, offers: Sequence[_Offer]) -> list[Job | RvcBatchError]:
        choices = self._choices()
        read = [self._read(offer, choices) for offer in offers]
        files = [each for each in read if isinstance(each, _Read)]
        new = self._queue.submit_all(
            [job for file in files for job in file.new], taken=lambda name: publish.is_taken(self._home.outbox, name)
        )
        failpoint(INGEST_SUBMITTED)
        rows = iter(new)
        by_file = [_takings(file, list(itertools.islice(rows, len(file.new)))) for file in files]
        taking = [each for takings in by_file for each in takings]
        try:
            self._move(taking)
            self._admit(taking)
        except EnvironmentFault:
            for each in taking:
                if each.outcome is None:
                    self.adopt(each.job)
            raise
        outcomes = iter(_outcome(takings) for takings in by_file)
        return [next(outcomes) if isinstance(each, _Read) else each for each in read]

    def _read(self, offer: _Offer, choices: Choices) -> _Read | SourceChanged:
        path = self._inbox_path(offer.rel)
        failpoint(INGEST_SETTLED)
        try:
            sha256 = _hash_unchanged(path, offer.look)
        except SourceChanged as e:
            return e
        failpoint(INGEST_HASHED)
        wanted = offer.refusal or _requests_of(path, offer.rel, choices)
        refusal = wanted if isinstance(wanted, RvcBatchError) else None
        requests = [Request("", choices.settings)] if isinstance(wanted, RvcBatchError) else wanted
        new = [
            NewJob(
                source_name=display_name(offer.rel),
                source_rel=offer.rel,
                size=offer.look.size,
                mtime_ns=offer.look.mtime_ns,
                device=offer.look.device,
                inode=offer.look.inode,
                content_sha256=sha256,
                voice=request.voice,
                settings=request.settings,
                output_rel=self._output_rel(offer.rel, request, is_variant=len(requests) > 1),
                max_attempts=self._max_attempts,
                seconds_in=offer.seconds,
            )
            for request in requests
        ]
        return _Read(path, new, refusal)

    def _recover(self, job: Job) -> None:
        source = self._sources.path(job)
        inbox_file = self._inbox_path(job.source_rel)
        is_shared = any(other.id > job.id and _is_sibling(other, job) for other in self._stranded.values())
        is_variant = job.id in self._variants or self._sources.is_variant(job)
        taking = _Taking(job, inbox_file, None, is_variant, is_shared)
        if not source.is_file():
            if not self._is_source(inbox_file, job):
                self._sources.check_inbox()
                self._queue.reject(job.id, _recorded(_gone(job)), actor="recovery")
                return
            self._move([taking])
        else:
            if not is_shared and self._is_source(inbox_file, job):
                inbox_file.unlink()  # copied from another volume by a run that died before it removed the original
            self._complete([taking])
        if taking.outcome is not None:
            logger.error("job %d: %s", job.id, taking.outcome)  # the job has failed and says why
            return
        logger.info("job %d: %s accepted after a restart", job.id, job.source_name)
        taking.refusal = self._fault_of(source) or self._refusal_of(source, job)
        self._admit([taking])

    def _admit(self, taking: Sequence[_Taking]) -> None:
        """Queue the jobs whose files are in place, or fail them for the reason found."""
        failpoint(INGEST_MOVED)
        moved = [each for each in taking if each.outcome is None]
        good = [each for each in moved if each.is_to_be_queued]
        for each, job in zip(good, self._queue.enqueue_all([each.job.id for each in good]), strict=True):
            each.outcome = job
            logger.info("job %d: %s %s for voice %s", job.id, job.source_name, job.state, job.voice)
        if good:
            failpoint(INGEST_QUEUED)
        for each in moved:
            job = each.job
            if job.state is JobState.DUPLICATE:
                logger.info("job %d: %s is at work already as job %s", job.id, job.source_name, job.duplicate_of)
                each.outcome = job
            elif each.refusal is not None:
                each.outcome = self._queue.reject(job.id, _recorded(each.refusal))
                logger.info("job %d: %s refused: %s %s", job.id, job.source_name, each.refusal.code, each.refusal)
            if isinstance(each.outcome, Job) and each.outcome.state in TERMINAL:
                self._sources.settle(each.outcome)

    def _move(self, taking: Sequence[_Taking]) -> None:
        """Move files and what belongs to them into the work folders of their jobs; all names survive power loss.

        A file that cannot be moved is where it was; its job has failed, and its outcome says why.

        Raises:
            EnvironmentFault: the work folder cannot be written.
        """
        try:
            variants = [each.job.id for each in taking if each.is_variant]
            self._sources.open_folders([each.job for each in taking], variants=variants)
        except OSError as e:
            raise durable.environment_fault(e, self._home.work) from e
        failpoint(INGEST_FOLDER)
        shared = [each for each in taking if each.is_shared]
        twins = self._bring(shared, {})
        if shared:
            self._sync([self._sources.folder(each.job) for each in shared])
        self._bring([each for each in taking if not each.is_shared], twins)
        failpoint(INGEST_TAKEN)
        self._complete([each for each in taking if each.outcome is None])

    def _bring(self, taking: Sequence[_Taking], twins: Mapping[Path, Path]) -> dict[Path, Path]:
        """Bring files into their work folders; return where each is now. `twins` is where a sibling has it already."""
        there = dict(twins)
        for each in taking:
            source, twin = self._sources.path(each.job), there.get(each.path)
            try:
                if each.is_shared:
                    durable.share(twin or each.path, source)
                elif twin is not None:
                    _rename(each.path, source, twin)
                else:
                    _rename(each.path, source)
            except OSError as e:
                if e.errno in OF_THE_MACHINE:
                    raise durable.environment_fault(e, self._home.work) from e
                each.outcome = self._unmovable(each.job, each.path, e)
            else:
                there.setdefault(each.path, source)
        return there

    def _sync(self, folders: Sequence[Path]) -> None:
        """Make the names in folders durable.

        Raises:
            EnvironmentFault: they cannot be made so.
        """
        try:
            durable.sync_all(folders=folders)
        except OSError as e:
            raise durable.environment_fault(e, self._home.work) from e

    def _complete(self, taking: Sequence[_Taking]) -> None:
        """Let what belongs to files that are in their work folders follow them there; make all of it durable.

        Where another file of that name has been dropped since, what lies beside it is that one's.

        Raises:
            EnvironmentFault: it cannot be made durable.
        """
        for each in taking:
            source = self._sources.path(each.job)
            bring = durable.share if each.is_shared else _rename
            for companion in () if self._is_anothers(each, source) else companions(each.path.parent, each.path.name):
                try:
                    bring(companion, source.with_name(renamed(companion.name, each.path.name, source.name)))
                except OSError as e:  # it is gone again, or cannot be moved; the audio is what counts
                    if e.errno in OF_THE_MACHINE:
                        raise durable.environment_fault(e, self._home.work) from e
        folders = [self._sources.folder(each.job) for each in taking]
        folders += [f for f in dict.fromkeys(each.path.parent for each in taking) if f.is_dir()]  # or removed, empty
        self._sync(folders)

    def _is_anothers(self, each: _Taking, source: Path) -> bool:
        """Is the file in the inbox another than the one that was taken? A shared one may still be there."""
        if not os.path.lexists(each.path):
            return False
        return not (each.is_shared and (_is_one_file(each.path, source) or self._is_source(each.path, each.job)))

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

    def _fault_of(self, source: Path) -> RvcBatchError | None:
        """Look again for what `refuse` was called for before the restart."""
        with source.open("rb") as file:
            size = source.stat().st_size
            container = containers.inspect(file, size)
        if size == 0:
            return InputEmpty(f"{source.name} has zero bytes")
        return containers.truncated(source.name, container) if container.completeness is Completeness.SHORT else None

    def _is_source(self, path: Path, job: Job) -> bool:
        try:
            found = path.lstat()
            same_size = stat.S_ISREG(found.st_mode) and found.st_size == job.source_size
            return same_size and durable.digest(path)[0] == job.content_sha256
        except OSError:
            return False

    def _refusal_of(self, source: Path, job: Job) -> RvcBatchError | None:
        """Say why an accepted file cannot be rendered as asked, by what is there after the restart."""
        found = _requests_of(source, job.source_rel, self._choices())
        return found if isinstance(found, RvcBatchError) else None

    def _output_rel(self, rel: bytes, request: Request, *, is_variant: bool) -> bytes:
        """Return the wanted path below the outbox, in names that its volume takes."""
        wanted = output_rel(rel, request.settings, variant=request.voice if is_variant else "")
        if volumes.refuses_names(self._home.outbox) and volumes.acceptable(wanted) != wanted:
            logger.warning("%s holds characters that the volume of the outbox refuses; `_` replaces them", wanted)
            return volumes.acceptable(wanted)
        return wanted

    def _inbox_path(self, rel: bytes) -> Path:
        return self._home.inbox / os.fsdecode(rel)


def _requests_of(source: Path, rel: bytes, choices: Choices) -> list[Request] | RvcBatchError:
    try:
        return read_requests(source, rel, choices)
    except RvcBatchError as e:
        return e


def _takings(file: _Read, jobs: Sequence[Job]) -> list[_Taking]:
    is_variant = len(jobs) > 1
    return [_Taking(job, file.path, file.refusal, is_variant, is_shared=job is not jobs[-1]) for job in jobs]


def _outcome(takings: Sequence[_Taking]) -> Job | RvcBatchError:
    """Return what became of a file: the last of its jobs is the one that moves it."""
    last = takings[-1].result
    return last if isinstance(last, RvcBatchError) else takings[0].result


def _is_sibling(one: Job, other: Job) -> bool:
    """Are two jobs made of one file?"""
    places = [(job.source_rel, job.source_device, job.source_inode, job.content_sha256) for job in (one, other)]
    return one.id != other.id and places[0] == places[1]


def _only(outcomes: Sequence[Job | RvcBatchError]) -> Job:
    (outcome,) = outcomes
    if isinstance(outcome, RvcBatchError):
        raise outcome
    return outcome


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


def _rename(source: Path, target: Path, twin: Path | None = None) -> None:
    """Move a file; to another volume it is copied, from `twin` if that is a name of the same content there."""
    try:
        source.rename(target)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        if twin is None:
            durable.link_or_copy(source, target)
        else:
            durable.share(twin, target)
        source.unlink()
    else:
        if _is_one_file(source, target):  # left by power loss in mid-move; then a rename does nothing, by POSIX
            source.unlink()


def _is_one_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False

"""Results reach the outbox here, whole, durable and under a name of their own, or not at all.

    render to outbox/.rvc-batch-tmp/ → verify → make durable, hash       in the worker (`seal`)
    record intent → link to the final name → make the folder durable → record `done`    in the daemon (`deliver`)

The worker never touches a final name and the daemon never decodes audio. After a crash the recorded hash tells a
finished result from none (`is_published`), so nothing is rendered or published twice. A name in the outbox is never
overwritten.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rvc_batch.errors import InputError, OutputInvalid, SourceGone
from rvc_batch.jobs import durable
from rvc_batch.jobs.failpoints import (
    PUBLISH_FOLDER,
    PUBLISH_INTENDED,
    PUBLISH_LINKED,
    PUBLISH_RECORDED,
    PUBLISH_SYNCED,
    PUBLISH_TIDIED,
    RENDER_SEALED,
    RENDER_SYNCED,
    RENDER_VERIFIED,
    RENDER_WRITTEN,
    failpoint,
)
from rvc_batch.jobs.models import Job

if TYPE_CHECKING:
    from rvc_batch.engine.types import ConversionReport
    from rvc_batch.jobs.queue import Taken

TEMP_FOLDER = ".rvc-batch-tmp"


@dataclass(frozen=True)
class Sealed:
    """A verified, durable result under its temporary name."""

    sha256: str
    size: int


class Ledger(Protocol):
    """The part of the queue that publishing writes to."""

    def record_intent(self, job: Job, *, output_sha256: str, output_size: int) -> None: ...
    def reserve_another_name(self, job: Job, *, taken: Taken) -> Job: ...
    def finish(self, job: Job, report: ConversionReport) -> Job: ...


def temp_path(outbox: Path, job: Job) -> Path:
    """Return where this claim renders to: on the volume of the outbox, hidden from it."""
    return outbox / TEMP_FOLDER / f"{job.public_id}.{job.claim_no}.part"


def prepare(outbox: Path, job: Job) -> None:
    """Make room for the temporary file of this claim.

    Raises:
        OSError: the outbox is missing or cannot be written.
    """
    durable.make_folders(outbox, Path(TEMP_FOLDER))
    temp_path(outbox, job).unlink(missing_ok=True)


def seal(temp: Path, report: ConversionReport) -> Sealed:
    """Verify a rendered file by reading all of it, make it durable and hash it.

    Raises:
        OutputInvalid: length, rate or a sample is not what the report says.
        OSError: it cannot be read or made durable.
    """
    failpoint(RENDER_WRITTEN)
    _verify(temp, report)
    failpoint(RENDER_VERIFIED)
    durable.sync_path(temp)
    failpoint(RENDER_SYNCED)
    sealed = Sealed(*durable.digest(temp))
    failpoint(RENDER_SEALED)
    return sealed


def deliver(ledger: Ledger, outbox: Path, job: Job, temp: Path, *, sealed: Sealed, report: ConversionReport) -> Job:
    """Publish a sealed file under the job's output name and record that the job is done.

    Every step can be repeated, so a call that failed half-way is simply made again.

    Raises:
        LeaseLost: another claim owns the job; nothing was published.
        OSError: the outbox cannot be written; `done` is not recorded.
        EnvironmentFault: the database cannot be written.
    """
    ledger.record_intent(job, output_sha256=sealed.sha256, output_size=sealed.size)
    failpoint(PUBLISH_INTENDED)
    job = _link(ledger, outbox, job, temp, sealed)
    target = output_path(outbox, job)
    try:
        failpoint(PUBLISH_LINKED)
        durable.sync_folder(target.parent)
    except OSError:
        target.unlink(missing_ok=True)  # the job will be given back and rendered again: not at all, rather than twice
        raise
    failpoint(PUBLISH_SYNCED)
    with contextlib.suppress(OSError):  # the caller tries again, and after it the sweep of the next start
        temp.unlink(missing_ok=True)
    failpoint(PUBLISH_TIDIED)
    done = ledger.finish(job, report)
    failpoint(PUBLISH_RECORDED)
    return done


def is_published(outbox: Path, job: Job) -> bool:
    """Does the outbox hold exactly what this job intended to publish?"""
    if job.output_sha256 is None or job.output_size is None:
        return False
    return _holds(output_path(outbox, job), Sealed(job.output_sha256, job.output_size))


def confirm_published(outbox: Path, job: Job) -> bool:
    """As `is_published`, and then make the name durable: whoever died may not have come to that.

    Raises:
        OSError: it cannot be made durable.
    """
    if not is_published(outbox, job):
        return False
    durable.sync_folder(output_path(outbox, job).parent)
    return True


def is_taken(outbox: Path, output_rel: bytes) -> bool:
    """Is there anything of this name in the outbox, be it a broken link?"""
    return os.path.lexists(outbox / os.fsdecode(output_rel))


def output_path(outbox: Path, job: Job) -> Path:
    """Return the final path of a job's result."""
    return outbox / os.fsdecode(job.output_rel)


def sweep(outbox: Path, at_work: Callable[[], Collection[str]] = frozenset) -> int:
    """Remove what killed workers left behind; returns how many files.

    at_work: tells the public ids of the jobs that have not ended, whose files stay; without it no worker may be alive.
    """
    found = list((outbox / TEMP_FOLDER).glob("*.part"))
    busy = at_work()  # asked after the look: what was made since then is not in it
    left = [temp for temp in found if temp.name.partition(".")[0] not in busy]
    for temp in left:
        temp.unlink(missing_ok=True)
    return len(left)


def _link(ledger: Ledger, outbox: Path, job: Job, temp: Path, sealed: Sealed) -> Job:
    while True:
        target = output_path(outbox, job)
        durable.make_folders(outbox, target.parent.relative_to(outbox))
        failpoint(PUBLISH_FOLDER)
        try:
            durable.link_exclusively(temp, target)
        except FileExistsError:
            if not _holds(target, sealed):
                job = ledger.reserve_another_name(job, taken=lambda name: is_taken(outbox, name))
                continue
        except FileNotFoundError:
            if not _holds(target, sealed):  # an earlier call moved it there, on a volume without links
                raise
        return job


def _holds(path: Path, sealed: Sealed) -> bool:
    try:
        return path.lstat().st_size == sealed.size and durable.digest(path) == (sealed.sha256, sealed.size)
    except OSError:
        return False


def _verify(temp: Path, report: ConversionReport) -> None:
    import numpy as np

    from rvc_batch.engine.decoding import open_audio

    try:
        with open_audio(temp) as file:
            found, samples, is_finite = (file.sample_rate, file.channels), 0, True
            for block in file.blocks():
                samples += len(block)
                is_finite = is_finite and bool(np.isfinite(block).all())
    except (InputError, SourceGone) as e:
        raise OutputInvalid(f"the result cannot be read back ({e}); it is rendered again") from e
    expected = (report.samples_out, report.rate_out, report.channels_out)
    if (samples, *found) != expected:
        raise OutputInvalid(
            f"the result holds {_shape(samples, *found)}, expected {_shape(*expected)}; it is rendered again"
        )
    if not is_finite:
        raise OutputInvalid("the result holds samples that are not finite; it is rendered again")


def _shape(samples: int, rate: int, channels: int) -> str:
    return f"{samples} samples at {rate} Hz" + (f" in {channels} channels" if channels != 1 else "")

"""Why is this file no job, or which job took it? The answer to `rvc-batch why PATH`, in one sentence and a remedy.

The watcher writes down what it sees in the inbox and why it waits (`arrivals`); what became of a file that is gone
from there, the jobs know. Reads the database and file names only, opens no file, and works with the daemon down.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.arrival import SIDECAR_SUFFIX, why_file_is_ignored
from rvc_batch.jobs.models import Arrival, ArrivalVerdict, Job, JobState
from rvc_batch.jobs.output_names import display_name
from rvc_batch.jobs.reading import QueueReader

NOT_SEEN = "unseen"  # in the inbox, and the watcher has not looked since
GONE = "gone"  # neither there nor known

_ADVICE = {
    ArrivalVerdict.SETTLING: "wait; it is taken when it has stopped changing",
    ArrivalVerdict.INCOMPLETE: "copy it again if nothing writes it any more; after ten unchanged minutes it is refused",
    ArrivalVerdict.IGNORED: "give it the name of an audio file, or leave it: it is never touched",
    ArrivalVerdict.UNREADABLE: "do what it says; the file is looked at again by itself",
}


@dataclass(frozen=True)
class Explanation:
    """What is known of one path. `verdict` is one of `ArrivalVerdict`, the state of `job`, NOT_SEEN or GONE."""

    rel: bytes  # below the inbox
    verdict: str
    reason: str
    advice: str
    arrival: Arrival | None = None
    job: Job | None = None  # the newest of this path


def explain(home: Home, reader: QueueReader, given: Path) -> Explanation:
    """Explain a path as a person gives it: absolute, below the working folder, below the home or below the inbox.

    Raises:
        SettingsInvalid: it is not below the inbox, nor below processed/ or failed/, where sources go from there.
        DatabaseUnusable: the database cannot be read.
    """
    rel, is_in_inbox = locate(home, given)
    job = reader.latest_for_source(rel)
    if not is_in_inbox:
        return _of_job(rel, job) if job else _unknown(rel)
    arrival = _arrival_of(rel, reader.arrivals())
    if arrival is not None:
        return Explanation(rel, arrival.verdict, arrival.reason, _ADVICE[arrival.verdict], arrival, job)
    path = home.inbox / os.fsdecode(rel)
    if not os.path.lexists(path):
        return _of_job(rel, job) if job else _unknown(rel)
    reason = _quietly_ignored(rel)
    if reason:
        return Explanation(rel, ArrivalVerdict.IGNORED, reason, _ADVICE[ArrivalVerdict.IGNORED], None, job)
    if path.name.lower().endswith(os.fsdecode(SIDECAR_SUFFIX)):
        reason, advice = "settings file", f"it goes with {path.name[: -len(SIDECAR_SUFFIX)]}; ask about that one"
        return Explanation(rel, ArrivalVerdict.IGNORED, reason, advice, None, job)
    if path.is_dir():
        return Explanation(rel, NOT_SEEN, "a folder; what is in it is taken file by file", "ask about a file in it")
    return Explanation(rel, NOT_SEEN, "the watcher has not looked since it came", "rvc-batch status", None, job)


def locate(home: Home, given: Path) -> tuple[bytes, bool]:
    """Return the path below the inbox, and whether that is where it was named. Links inside the inbox stay links.

    Raises:
        SettingsInvalid: as `explain`.
    """
    readings = [given] if given.is_absolute() else [Path.cwd() / given, home.root / given, home.inbox / given]
    for reading in sorted(readings, key=lambda path: not os.path.lexists(path)):  # what is there goes first
        plain = Path(os.path.normpath(reading))
        for place, base in itertools.product(
            (plain, plain.parent.resolve() / plain.name), (home.inbox, home.processed, home.failed)
        ):
            folder = next((f for f in (base, base.resolve()) if f in place.parents), None)
            if folder is not None:
                return os.fsencode(place.relative_to(folder)), base == home.inbox
    raise SettingsInvalid(f"{given} is not below {home.inbox}; name a file there, or one of processed/ or failed/")


def _arrival_of(rel: bytes, arrivals: list[Arrival]) -> Arrival | None:
    """Return what the watcher says of a path, or else of the nearest folder above it."""
    known = {arrival.path: arrival for arrival in arrivals}
    while rel:
        if rel in known:
            return known[rel]
        rel = rel.rpartition(b"/")[0]
    return None


def _quietly_ignored(rel: bytes) -> str:
    """Say why the watcher passes over a name without writing it down: it or a folder above it is hidden."""
    hidden = next((part for part in rel.split(b"/") if part.startswith(b".")), b"")
    return f"{display_name(hidden)}: {why_file_is_ignored(hidden)}" if hidden else ""


def _of_job(rel: bytes, job: Job) -> Explanation:
    name = f"it is job {job.id}"
    if job.error is not None and job.state is JobState.FAILED:
        reason, advice = f"{name}, which failed: {job.error.code} {job.error.message}", f"rvc-batch retry {job.id}"
    elif job.state is JobState.DUPLICATE:
        reason, advice = f"{name}, the same as job {job.duplicate_of}", f"rvc-batch job {job.duplicate_of}"
    elif job.state is JobState.DONE:
        reason, advice = f"{name}, done: {display_name(job.output_rel)} in the outbox", ""
    else:
        reason, advice = f"{name}, {job.state}", f"rvc-batch job {job.id}"
    return Explanation(rel, job.state, reason, advice, None, job)


def _unknown(rel: bytes) -> Explanation:
    return Explanation(rel, GONE, "there is no such file, and no job was made of one", "copy it into the inbox")

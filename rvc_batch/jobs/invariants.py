"""The invariants I1 to I12 of one home: database, work folder and outbox must tell the same story.

    I1 running ⇔ worker and lease        I5 done ⇒ output known         I9  one active job per content
    I2 ended ⇔ time of its end           I6 output names are unique     I10 accepted exactly once
    I3 attempts within their budget      I7 work/ ⇔ unfinished jobs     I11 stages fit into their attempt
    I4 one attempt per claim             I8 only whole results in outbox/   I12 the journal leads to the state

While a daemon works, files and rows are apart for a moment; what is found twice is no such moment. Only reads.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import Connection

from rvc_batch.db.engine import open_reader
from rvc_batch.db.invariants import Violation, journal_steps, table_violations
from rvc_batch.home import Home
from rvc_batch.jobs import publish
from rvc_batch.jobs.models import ACTIVE, TRANSITIONS, Job, JobState
from rvc_batch.jobs.output_names import display_name
from rvc_batch.jobs.reading import QueueReader
from rvc_batch.jobs.sources import RECORD, Sources

SECOND_LOOK_S = 3.0


def check_home(home: Home, *, is_live: bool, sleep: Callable[[float], None] = time.sleep) -> list[Violation]:
    """Return every violation; with a daemon at work, those that are still there a moment later.

    Raises:
        DatabaseUnusable: there is no database, or it cannot be read.
    """
    found = _look(home)
    if found and is_live:
        sleep(SECOND_LOOK_S)
        again = set(_look(home))
        found = [violation for violation in found if violation in again]
    return found


def _look(home: Home) -> list[Violation]:
    with closing(open_reader(home.database)) as database:
        rows = database.read(_check_rows)
        jobs = QueueReader(database).list()
    return [*rows, *_work_violations(home, jobs), *_outbox_violations(home, jobs)]


def _check_rows(c: Connection) -> list[Violation]:
    return [*table_violations(c), *_journal_violations(c)]


def _journal_violations(c: Connection) -> Iterator[Violation]:
    """I12: every entry begins where the one before ended, along a transition there is, and the last is the state."""
    allowed = {(str(a), str(b)) for a, b in TRANSITIONS}
    for (job_id, state), steps in itertools.groupby(journal_steps(c), key=lambda step: step[:2]):
        present: str | None = None
        for _, _, before, after in steps:
            is_note = before == after and before is not None
            is_step = before is None if present is None else (before, after) in allowed or is_note
            if before != present or not is_step:
                yield Violation("I12", job_id, f"is said to go from {before} to {after} when it was {present}")
                break
            present = after
        else:
            if present != state:
                yield Violation("I12", job_id, f"is {state}, but its journal ends with {present}")


def _work_violations(home: Home, jobs: list[Job]) -> Iterator[Violation]:
    """I7: each folder of work/ belongs to a job that has not ended, and each such job has its source."""
    by_folder = {job.public_id: job for job in jobs}
    sources = Sources(home, keep_sources=True)
    for folder in sorted(home.work.iterdir()) if home.work.is_dir() else ():
        job = by_folder.get(folder.name)
        if job is None:
            yield Violation("I7", None, f"{folder} belongs to no job{_named_in(folder)}")
        elif job.state not in ACTIVE:
            yield Violation("I7", job.id, f"is {job.state}, but its source is still in {folder}")
    for job in jobs:
        source = sources.path(job)
        if job.state not in (JobState.QUEUED, JobState.RUNNING):
            continue
        try:
            size = source.lstat().st_size
        except OSError:
            if sources.set_aside(job) is None:
                yield Violation("I7", job.id, f"is {job.state}, but its source is not at {source}")
        else:
            if size != job.source_size:
                yield Violation("I7", job.id, f"has a source of {size} bytes, accepted were {job.source_size}")


def _named_in(folder: Path) -> str:
    try:
        return f" (it says job {json.loads((folder / RECORD).read_bytes())['id']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _outbox_violations(home: Home, jobs: list[Job]) -> Iterator[Violation]:
    """I8: temporary files are those of running claims, and a result that is there is what was published."""
    own = {publish.temp_path(home.outbox, job) for job in jobs if job.state is JobState.RUNNING}
    temps = home.outbox / publish.TEMP_FOLDER
    for left in sorted(temps.iterdir()) if temps.is_dir() else ():
        if left not in own:
            yield Violation("I8", None, f"{left} belongs to no running job")
    latest = {job.output_rel: job for job in reversed(jobs) if job.state is JobState.DONE}
    for output_rel, job in latest.items():
        path = home.outbox / os.fsdecode(output_rel)
        if path.is_file() and not publish.is_published(home.outbox, job):
            yield Violation("I8", job.id, f"published {display_name(output_rel)}, which has other content now")

"""What can be asked of the job database. Every method is one read transaction; nothing here writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.db.engine import Database, open_reader
from rvc_batch.db.schema import attempts, events, jobs, stage_timings, workers
from rvc_batch.errors import JobNotFound
from rvc_batch.jobs.box_records import DRAIN_KEY, PAUSE_KEY, VERSION_KEY, arrival_of, pause_of, worker_of
from rvc_batch.jobs.models import ACTIVE, Arrival, Attempt, Event, Job, JobState, PauseState, WorkerRecord
from rvc_batch.jobs.records import attempt_of, event_of, job_of

T = TypeVar("T")
Jobs: TypeAlias = list[Job]  # `list` is also the name of a method below
Attempts: TypeAlias = list[Attempt]
Events: TypeAlias = list[Event]
Workers: TypeAlias = list[WorkerRecord]
Arrivals: TypeAlias = list[Arrival]


class QueueReader:
    """The job database as `jobs`, `job` and the queue itself read it; `status` has its own way (jobs/overview.py)."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._clock = clock

    @classmethod
    def open_readonly(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open an existing database to read; works while others write, creates and changes nothing.

        Raises:
            DatabaseUnusable: there is no such file.
        """
        return cls(open_reader(path), clock)

    def close(self) -> None:
        """Close all connections."""
        self._db.close()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Answer a question of another file of this package, in one read transaction."""
        return self._db.read(question)

    def get(self, job_id: int) -> Job:
        """Return one job.

        Raises:
            JobNotFound: no job has this number.
        """
        return self._db.read(lambda c: self._get(c, job_id))

    def list(
        self,
        *,
        state: JobState | Sequence[JobState] | None = None,
        voice: str | None = None,
        error_code: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> Jobs:
        """Return jobs, newest first."""
        wanted = (state,) if isinstance(state, JobState) else tuple(state or ())
        found = statements.listing(
            states=tuple(str(s) for s in wanted), voice=voice, error_code=error_code, limit=limit, offset=offset
        )
        return self._db.read(lambda c: [job_of(row) for row in c.execute(found).mappings()])

    def unfinished(self) -> Jobs:
        """Return all `running` and `ingesting` jobs, oldest first: what recovery at start looks at."""
        found = self.list(state=(JobState.RUNNING, JobState.INGESTING))
        return found[::-1]

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""

        def count(c: Connection) -> dict[JobState, int]:
            found = {JobState(state): number for state, number in c.execute(statements.counts())}
            return {state: found.get(state, 0) for state in JobState}

        return self._db.read(count)

    def attempts(self, job_id: int) -> Attempts:
        """Return the claims of a job, oldest first.

        Raises:
            JobNotFound: no job has this number.
        """

        def read(c: Connection) -> Attempts:
            self._get(c, job_id)
            rows = c.execute(attempts.select().where(attempts.c.job_id == job_id).order_by(attempts.c.claim_no))
            return [attempt_of(row, self._stages(c, row["id"])) for row in rows.mappings().all()]

        return self._db.read(read)

    def events(self, job_id: int) -> Events:
        """Return the journal of a job, oldest first."""
        found = events.select().where(events.c.job_id == job_id).order_by(events.c.id)
        return self._db.read(lambda c: [event_of(row) for row in c.execute(found).mappings()])

    def workers(self) -> Workers:
        """Return all worker processes that ever registered, the latest heartbeat first."""
        found = workers.select().order_by(workers.c.heartbeat_at.desc())
        return self._db.read(lambda c: [worker_of(row) for row in c.execute(found).mappings()])

    def arrivals(self) -> Arrivals:
        """Return the files of the inbox that are no jobs (yet)."""
        return self._db.read(lambda c: [arrival_of(row) for row in c.execute(statements.all_arrivals()).mappings()])

    def active_duplicate(self, dedupe_key: str) -> Job | None:
        """Return the job at work on the same content, voice, settings and name."""
        return self._db.read(lambda c: self._active_duplicate(c, dedupe_key))

    def latest_for_source(self, source_rel: bytes) -> Job | None:
        """Return the newest job of this path below the inbox, in whatever state."""
        found = jobs.select().where(jobs.c.source_rel == source_rel).order_by(jobs.c.id.desc()).limit(1)

        def read(c: Connection) -> Job | None:
            row = c.execute(found).mappings().one_or_none()
            return None if row is None else job_of(row)

        return self._db.read(read)

    def paused(self) -> PauseState:
        """Return whether jobs may be claimed now."""
        return self._db.read(self._paused)

    def is_draining(self) -> bool:
        """Return whether files of the inbox are left there until `resume`."""
        return self._db.read(self._is_draining)

    def version(self) -> str:
        """Return the version of rvc-batch that made the tables."""
        return self._db.read(lambda c: str(self._meta(c, VERSION_KEY)))

    def _get(self, c: Connection, job_id: int) -> Job:
        row = c.execute(jobs.select().where(jobs.c.id == job_id)).mappings().one_or_none()
        if row is None:
            raise JobNotFound(f"there is no job {job_id}; `rvc-batch jobs` lists them")
        return job_of(row)

    @staticmethod
    def _stages(c: Connection, attempt_id: int) -> dict[str, float]:
        found = sa.select(stage_timings.c.stage, stage_timings.c.seconds).where(
            stage_timings.c.attempt_id == attempt_id
        )
        return {row.stage: row.seconds for row in c.execute(found.order_by(stage_timings.c.seq))}

    @staticmethod
    def _active_duplicate(c: Connection, dedupe_key: str) -> Job | None:
        active = jobs.c.state.in_([sa.literal_column(f"'{state}'") for state in sorted(ACTIVE)])
        row = c.execute(jobs.select().where(jobs.c.dedupe_key == dedupe_key, active)).mappings().one_or_none()
        return None if row is None else job_of(row)

    def _paused(self, c: Connection) -> PauseState:
        return pause_of(self._meta(c, PAUSE_KEY), self._clock())

    def _is_draining(self, c: Connection) -> bool:
        return self._meta(c, DRAIN_KEY) is not None

    @staticmethod
    def _meta(c: Connection, key: str) -> str | None:
        return c.execute(statements.meta_value(key)).scalar_one_or_none()

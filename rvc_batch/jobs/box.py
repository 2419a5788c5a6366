"""What the database knows of the box around the jobs: pause, workers, arrivals."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.db.engine import Database
from rvc_batch.db.schema import arrivals, meta, workers
from rvc_batch.jobs.box_records import DRAIN_KEY, PAUSE_KEY
from rvc_batch.jobs.models import Arrival, JobError
from rvc_batch.jobs.notices import Notices
from rvc_batch.jobs.reading import QueueReader
from rvc_batch.jobs.retry_policy import PAUSE_SECONDS
from rvc_batch.version import __version__


class BoxState(QueueReader):
    """The part of the queue that changes no job."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time, *, host: str | None = None) -> None:
        super().__init__(database, clock)
        self._host = platform.node() if host is None else host

    @property
    def busy_waits(self) -> int:
        """How often the write lock could not be had in time."""
        return self._db.busy_waits

    def notices(self) -> Notices:
        """Return the outbox of the hooks in this database."""
        return Notices(self._db, self._clock)

    def pause(self, reason: str) -> None:
        """Let no job be claimed until `resume`."""
        self._db.write(lambda c: self._store_pause(c, reason=reason, code="", since=self._clock(), until=None))

    def drain(self) -> None:
        """Let no more files become jobs until `resume`; those there are get finished, so a pause by hand ends."""

        def body(c: Connection) -> None:
            if not self._paused(c).code:
                self._delete_pause(c)
            if not self._is_draining(c):
                c.execute(meta.insert().values(key=DRAIN_KEY, value=json.dumps(self._clock())))

        self._db.write(body)

    def resume(self) -> None:
        """Let jobs be claimed and files become jobs again, whatever the pause was for."""

        def body(c: Connection) -> None:
            self._delete_pause(c)
            c.execute(meta.delete().where(meta.c.key == DRAIN_KEY))

        self._db.write(body)

    def register_worker(self, worker_id: str, *, pid: int, backend: str = "", device: str = "") -> None:
        """Note a new worker process; `worker_id` is random, never a host name."""
        now = self._clock()
        row = {
            "id": worker_id,
            "host": self._host,
            "pid": pid,
            "started_at": now,
            "heartbeat_at": now,
            "state": "starting",
            "backend": backend,
            "device": device,
            "warm_voices_json": "[]",
            "version": __version__,
        }
        self._db.write(lambda c: c.execute(workers.insert().values(**row)))

    def worker_heartbeat(
        self,
        worker_id: str,
        *,
        state: str,
        job_id: int | None = None,
        rss: int | None = None,
        warm_voices: Sequence[str] = (),
        backend: str | None = None,
        device: str | None = None,
    ) -> None:
        """Note what a worker does; backend and device stay as they are when None."""
        values: dict[str, Any] = {
            "heartbeat_at": self._clock(),
            "state": state,
            "job_id": job_id,
            "rss": rss,
            "warm_voices_json": json.dumps(list(warm_voices)),
        }
        values |= {name: value for name, value in (("backend", backend), ("device", device)) if value is not None}
        self._db.write(lambda c: c.execute(sa.update(workers).where(workers.c.id == worker_id).values(**values)))

    def replace_arrivals(self, found: Sequence[Arrival]) -> None:
        """Store what the watcher sees and has not accepted; writes only if something changed."""
        wanted = sorted(found, key=lambda a: a.path)
        if wanted == self.arrivals():
            return

        def body(c: Connection) -> None:
            c.execute(arrivals.delete())
            if wanted:
                c.execute(arrivals.insert(), [dataclasses.asdict(a) | {"verdict": str(a.verdict)} for a in wanted])

        self._db.write(body)

    def _pause_for_fault(self, c: Connection, error: JobError) -> None:
        """Pause until it is time to try again whether the machine is well."""
        now, present = self._clock(), self._paused(c)
        if present.paused and present.until == math.inf:
            return  # a person paused the queue; that stands
        since = present.since if present.code == error.code and present.since is not None else now
        self._store_pause(c, reason=error.message, code=error.code, since=since, until=now + PAUSE_SECONDS)

    def _forget_fault(self, c: Connection) -> None:
        """End a pause whose time is up, because a job went well since."""
        present = self._paused(c)
        if present.code and not present.paused:
            self._delete_pause(c)

    def _store_pause(self, c: Connection, **stored: Any) -> None:
        self._delete_pause(c)
        c.execute(meta.insert().values(key=PAUSE_KEY, value=json.dumps(stored)))

    @staticmethod
    def _delete_pause(c: Connection) -> None:
        c.execute(meta.delete().where(meta.c.key == PAUSE_KEY))

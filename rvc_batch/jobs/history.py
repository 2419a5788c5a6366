"""The part of the queue that forgets: rows of jobs that ended long ago, with attempts, timings and journal.

Only jobs that have ended are ever forgotten, and never one that another row names as its first. What a person can
still retry is the caller's to keep (`jobs.retention`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.db.schema import jobs, workers
from rvc_batch.jobs.box import BoxState
from rvc_batch.jobs.models import ACTIVE, TERMINAL
from rvc_batch.jobs.reading import Jobs
from rvc_batch.jobs.records import job_of

T = TypeVar("T")

_ENDED = jobs.c.state.in_([str(state) for state in sorted(TERMINAL)])
_ACTIVE = jobs.c.state.in_([str(state) for state in sorted(ACTIVE)])


class History(BoxState):
    """Forgetting, and working while nobody changes a job."""

    def ended_before(self, at: float, *, after: int = 0, limit: int) -> Jobs:
        """Return jobs of numbers above `after` that ended before a time, in order, without those a duplicate names."""
        later = jobs.alias()
        is_named = sa.exists().where(later.c.duplicate_of == jobs.c.id)
        is_old = (_ENDED, jobs.c.id > after, jobs.c.finished_at < at)
        found = jobs.select().where(*is_old, ~is_named).order_by(jobs.c.id).limit(limit)
        return self._db.read(lambda c: [job_of(row) for row in c.execute(found).mappings()])

    def forget(self, numbers: Sequence[int]) -> int:
        """Delete rows of jobs that have ended, with all that hangs on them; return how many there were.

        A job that is at work again, or is named by a duplicate, by then stays.
        """
        later = jobs.alias()
        is_named = sa.exists().where(later.c.duplicate_of == jobs.c.id)
        gone = jobs.delete().where(jobs.c.id.in_(numbers), _ENDED, ~is_named)
        return self._db.write(lambda c: c.execute(gone).rowcount)

    def forget_workers(self, before: float) -> int:
        """Delete what is known of workers that were last heard of before a time; return how many there were."""
        gone = workers.delete().where(workers.c.heartbeat_at < before)
        return self._db.write(lambda c: c.execute(gone).rowcount)

    def undisturbed(self, action: Callable[[Jobs], T]) -> T:
        """Call `action` with the jobs that have not ended, while nobody can change one.

        It holds up everybody else who writes, so it must be quick; it may be called twice.
        """
        active = jobs.select().where(_ACTIVE).order_by(jobs.c.id)

        def body(c: Connection) -> T:
            return action([job_of(row) for row in c.execute(active).mappings()])

        return self._db.write(body)

"""The outbox of the hooks: which events are to be told to whom, kept until they were told.

The journal of the jobs is the source. A call of `collect` turns what the journal gained into one row per hook and moves
the mark of how far it read, in one transaction: a row is there if and only if the mark is behind it. So no verb of the
queue pays for hooks, nothing is told twice by us without a crash in between, and nothing is left out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rvc_batch.config import HookSettings
from rvc_batch.db import statements
from rvc_batch.db.engine import Database
from rvc_batch.db.schema import deliveries, events, jobs, meta
from rvc_batch.jobs.box_records import PAUSE_KEY, pause_of
from rvc_batch.jobs.models import ACTIVE, JobState

MARK_KEY = "hooks"  # in the table `meta`
RETRY_SECONDS = (10.0, 60.0, 600.0, 3600.0)  # after the first, second, … call that failed; then it is given up
BATCH = 500  # rows that one call tells at most
KEPT_SECONDS = 7 * 86_400.0  # for those given up, so that `status` can say so


@dataclass(frozen=True)
class Batch:
    """What one call of a hook is to tell: events of one kind, oldest first."""

    hook: str
    event: str
    rows: tuple[int, ...]
    bodies: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Mark:
    """How far the journal was read, and what was told of the box."""

    event_id: int
    paused_since: float | None
    is_busy: bool  # jobs moved since `idle` was told


class Notices:
    """The table `deliveries` and the mark."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._db, self._clock = database, clock

    def collect(self, hooks: Sequence[HookSettings]) -> None:
        """Note what happened since the last call; the first call with hooks begins with now.

        Raises:
            EnvironmentFault: the database cannot be written; nothing is lost, call again.
        """
        known = {hook.key: frozenset[str](hook.on) for hook in hooks}
        if self._db.read(lambda c: self._is_current(c, known)):
            return
        self._db.write(lambda c: self._collect(c, known))

    def due(self) -> list[Batch]:
        """Return what is to be told now; a hook that failed is left alone until its time, with all that is new."""
        return self._db.read(self._due)

    def told(self, batch: Batch) -> None:
        """Remove what a hook took."""
        self._db.write(lambda c: c.execute(deliveries.delete().where(deliveries.c.id.in_(batch.rows))))

    def refused(self, batch: Batch, error: str) -> int:
        """Note that a hook failed; return how many events were given up."""

        def body(c: Connection) -> int:
            at = self._clock()
            mine = deliveries.c.id.in_(batch.rows)
            c.execute(deliveries.update().where(mine).values(tries=deliveries.c.tries + 1, last_error=error))
            most = int(c.execute(sa.select(sa.func.max(deliveries.c.tries)).where(mine)).scalar_one())
            delay = RETRY_SECONDS[min(most, len(RETRY_SECONDS)) - 1]
            c.execute(deliveries.update().where(mine).values(next_try_at=at + delay))
            given_up = deliveries.update().where(mine, deliveries.c.tries > len(RETRY_SECONDS)).values(dropped_at=at)
            return int(c.execute(given_up).rowcount)

        return self._db.write(body)

    # --- from the journal to rows ---

    def _is_current(self, c: Connection, known: dict[str, frozenset[str]]) -> bool:
        mark = _mark(c)
        if not known:
            return mark is None
        if mark is None or _last_event(c) > mark.event_id:
            return False
        pause = pause_of(c.execute(statements.meta_value(PAUSE_KEY)).scalar_one_or_none(), self._clock())
        is_idle_now = mark.is_busy and not _is_at_work(c)
        return (pause.since if pause.paused else None) == mark.paused_since and not is_idle_now

    def _collect(self, c: Connection, known: dict[str, frozenset[str]]) -> None:
        at, mark = self._clock(), _mark(c)
        c.execute(deliveries.delete().where(deliveries.c.hook.not_in(known)))
        c.execute(deliveries.delete().where(deliveries.c.dropped_at < at - KEPT_SECONDS))
        c.execute(meta.delete().where(meta.c.key == MARK_KEY))
        if not known:
            return
        pause = pause_of(c.execute(statements.meta_value(PAUSE_KEY)).scalar_one_or_none(), at)
        since = pause.since if pause.paused else None
        last = _last_event(c)
        if mark is None:
            _store(c, _Mark(last, since, is_busy=False))
            return
        found = [(row.to_state, row.at, _job_body(row)) for row in c.execute(_ended_after(mark.event_id, last))]
        if since is not None and since != mark.paused_since:
            found.append(("paused", at, {"reason": pause.reason, "code": pause.code, "since": since}))
        is_busy = mark.is_busy or last > mark.event_id
        if is_busy and not _is_at_work(c):
            found.append(("idle", at, {}))
            is_busy = False
        rows = [
            {
                "hook": hook,
                "event": event,
                "at": when,
                "body_json": json.dumps(body),
                "tries": 0,
                "next_try_at": at,
                "last_error": "",
            }
            for event, when, body in found
            for hook, wanted in known.items()
            if event in wanted
        ]
        if rows:
            c.execute(deliveries.insert(), rows)
        _store(c, _Mark(last, since, is_busy))

    def _due(self, c: Connection) -> list[Batch]:
        waiting = deliveries.c.dropped_at.is_(None)
        resting = (
            sa.select(deliveries.c.hook).where(waiting, deliveries.c.next_try_at > self._clock()).scalar_subquery()
        )
        found = (
            sa.select(deliveries.c.id, deliveries.c.hook, deliveries.c.event, deliveries.c.at, deliveries.c.body_json)
            .where(waiting, deliveries.c.hook.not_in(resting))
            .order_by(deliveries.c.id)
            .limit(BATCH)
        )
        batches: dict[tuple[str, str], list[Any]] = {}
        for row in c.execute(found):
            batches.setdefault((row.hook, row.event), []).append(row)
        return [
            Batch(
                hook=hook,
                event=event,
                rows=tuple(row.id for row in rows),
                bodies=tuple({"at": row.at} | json.loads(row.body_json) for row in rows),
            )
            for (hook, event), rows in batches.items()
        ]


def _mark(c: Connection) -> _Mark | None:
    stored = c.execute(statements.meta_value(MARK_KEY)).scalar_one_or_none()
    return None if stored is None else _Mark(**json.loads(stored))


def _store(c: Connection, mark: _Mark) -> None:
    values = {"event_id": mark.event_id, "paused_since": mark.paused_since, "is_busy": mark.is_busy}
    c.execute(meta.insert().values(key=MARK_KEY, value=json.dumps(values)))


def _is_at_work(c: Connection) -> bool:
    active = jobs.c.state.in_([sa.literal_column(f"'{state}'") for state in sorted(ACTIVE)])
    return c.execute(sa.select(jobs.c.id).where(active).limit(1)).first() is not None


def _last_event(c: Connection) -> int:
    return int(c.execute(sa.select(sa.func.max(events.c.id))).scalar() or 0)


def _ended_after(first: int, last: int) -> sa.Select[Any]:
    ends = (str(JobState.DONE), str(JobState.FAILED))
    return (
        sa.select(
            events.c.at,
            events.c.to_state,
            jobs.c.id,
            jobs.c.source_name,
            jobs.c.voice,
            jobs.c.output_rel,
            jobs.c.seconds_in,
            jobs.c.wall_seconds,
            jobs.c.error_code,
            jobs.c.error_message,
        )
        .join(jobs, jobs.c.id == events.c.job_id)
        .where(events.c.id > first, events.c.id <= last, events.c.to_state.in_(ends))
        .order_by(events.c.id)
    )


def _job_body(row: Any) -> dict[str, Any]:
    body = {"job": row.id, "source": row.source_name, "voice": row.voice}
    if row.to_state == JobState.DONE:
        done = {"output": os.fsdecode(row.output_rel), "seconds": row.seconds_in, "work_seconds": row.wall_seconds}
        return body | done
    return body | {"code": row.error_code, "message": row.error_message}

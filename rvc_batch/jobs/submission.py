"""New rows for accepted files: all of them in one transaction, few statements however many they are.

A file whose content, voice, settings and name are at work already gets a row that says `duplicate`; it needs no output
name. A name that another job owns is reported back before anything is inserted.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.db.schema import jobs
from rvc_batch.jobs.models import Job, JobState, NewJob
from rvc_batch.jobs.output_names import output_key
from rvc_batch.jobs.records import job_of, values_of
from rvc_batch.jobs.transitions import entry


@dataclass(frozen=True)
class Submitted:
    """The new jobs, or the numbers of those whose output name is reserved; then nothing was inserted."""

    jobs: list[Job]
    reserved: list[int]


def submit(c: Connection, at: float, *, new: Sequence[NewJob], names: Sequence[bytes], actor: str) -> Submitted:
    """Insert a row for each new job, in this order, with the output name at the same place of `names`."""
    rows = [values_of(each) | _start(name, at) for each, name in zip(new, names, strict=True)]
    active = _active(c, rows)
    owned = set(c.execute(statements.OWNED_NAMES, {"of_names": [output_key(name) for name in names]}).scalars())
    first, twins, reserved = list[dict[str, Any]](), list[dict[str, Any]](), list[int]()
    for number, row in enumerate(rows):
        if row["dedupe_key"] in active:
            twins.append(row)
            continue
        key = output_key(row["output_rel"])
        if key in owned:
            reserved.append(number)
        owned.add(key)
        active[row["dedupe_key"]] = None  # it has no number yet
        row |= {"state": str(JobState.INGESTING), "output_key": key}
        first.append(row)
    if reserved:
        return Submitted([], reserved)
    _insert(c, first)
    active |= {row["dedupe_key"]: row["id"] for row in first}
    for row in twins:
        row |= {"state": str(JobState.DUPLICATE), "duplicate_of": active[row["dedupe_key"]], "finished_at": at}
    _insert(c, twins)
    entries = [entry(at, row["id"], None, JobState.INGESTING, actor) for row in rows]
    entries += [
        entry(at, row["id"], JobState.INGESTING, JobState.DUPLICATE, actor, f"of job {row['duplicate_of']}")
        for row in twins
    ]
    c.execute(statements.JOURNAL, entries)
    empty = dict.fromkeys(jobs.c.keys())
    return Submitted([job_of(empty | row) for row in rows], [])


def _start(name: bytes, at: float) -> dict[str, Any]:
    return {"public_id": secrets.token_hex(6), "output_rel": name, "created_at": at, "run_after": at}


def _active(c: Connection, rows: Sequence[dict[str, Any]]) -> dict[str, int | None]:
    keys = {"of_keys": [row["dedupe_key"] for row in rows]}
    return {row.dedupe_key: row.id for row in c.execute(statements.ACTIVE_BY_KEY, keys)}


def _insert(c: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows and note the number each has got."""
    if rows:
        for row, number in zip(rows, c.execute(statements.NEW_JOBS, rows).scalars(), strict=True):
            row["id"] = number

"""What is stored of the box around the jobs (pause, workers, arrivals), as records. No SQL, no files, no clock."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from rvc_batch.jobs.models import NOT_PAUSED, Arrival, ArrivalVerdict, PauseState, WorkerRecord

Row: TypeAlias = Mapping[Any, Any]  # column name → value

PAUSE_KEY, DRAIN_KEY = "pause", "drain"  # in the table `meta`
VERSION_KEY = "version"  # of rvc-batch that made the tables


def pause_of(stored: str | None, now: float) -> PauseState:
    """Return the value that is stored under `PAUSE_KEY` as a record."""
    if stored is None:
        return NOT_PAUSED
    values: dict[str, Any] = json.loads(stored)
    until = math.inf if values["until"] is None else values["until"]
    return PauseState(
        paused=now < until, reason=values["reason"], code=values["code"], since=values["since"], until=until
    )


def worker_of(row: Row) -> WorkerRecord:
    """Return a row of `workers` as a record."""
    values: dict[str, Any] = dict(row)
    return WorkerRecord(warm_voices=tuple(json.loads(values.pop("warm_voices_json"))), **values)


def arrival_of(row: Row) -> Arrival:
    """Return a row of `arrivals` as a record."""
    values: dict[str, Any] = dict(row)
    return Arrival(verdict=ArrivalVerdict(values.pop("verdict")), **values)

"""The time zone of the machine changes nothing that is stored, and no age that is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.cli.printing import ago
from rvc_batch.home import Home
from rvc_batch.jobs.backup import default_target
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import claimed, finished, queued


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


def move_to(zone: pytest.MonkeyPatch, name: str) -> None:
    zone.setenv("TZ", name)
    time.tzset()


def test_rows_and_ages_are_the_same_in_every_zone(tmp_path: Path, zone: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.sqlite3"
    move_to(zone, "Pacific/Auckland")
    queue = Queue.open(path)
    queued(queue)
    job = finished(queue, claimed(queue))
    events = queue.events(job.id)
    shown = ago(job.finished_at, (job.finished_at or 0) + 90)
    queue.close()
    move_to(zone, "America/Anchorage")
    queue = Queue.open(path)
    assert queue.get(job.id) == job
    assert queue.events(job.id) == events
    assert ago(job.finished_at, (job.finished_at or 0) + 90) == shown
    assert abs((job.finished_at or 0) - time.time()) < 600, "UTC seconds, not local ones"
    second = queued(queue, "other.wav")
    assert (second.queued_at or 0) >= (job.finished_at or 0), "no hour is lost or gained"
    queue.close()


def test_names_of_backups_sort_by_age_across_a_change_of_zone(tmp_path: Path, zone: pytest.MonkeyPatch) -> None:
    names = []
    for hours, place in enumerate(["Pacific/Auckland", "America/Anchorage", "Europe/Berlin"]):
        move_to(zone, place)
        names.append(default_target(Home(tmp_path), 1_800_000_000.0 + 3600 * hours).name)
    assert names == sorted(names)
    assert names[0] == "jobs-20270115T080000Z.sqlite3"

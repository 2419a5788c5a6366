"""Many files at once: each is taken once, whole, in the order they came, and memory stays bounded."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.config import WatchSettings
from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.watcher import MAX_ARRIVALS, Watcher
from tests import inline_box
from tests.inline_box import InlineBox
from tests.job_fakes import files_below, write_audio

WRITERS, PARTS = 200, 4
CROWD = 10_000
BYTES_PER_FILE = 6_000


class World:
    """A watcher with a clock of its own, over a real intake."""

    def __init__(self, box: InlineBox) -> None:
        self.box, self.now = box, 100.0
        self.watcher = Watcher(
            box.home.inbox,
            lambda: WatchSettings(settle_seconds=3.0),
            intake=box.ingest,
            board=box.queue,
            monotonic=lambda: self.now,
            wall=lambda: 1e9 + self.now,
        )

    def look(self, *times: float) -> None:
        for seconds in times:
            self.now += seconds
            self.watcher.look()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = Home(tmp_path / "home")
    home.create()
    with inline_box.opened(home) as box:
        yield World(box)


def test_two_hundred_slow_writers_at_once_give_two_hundred_jobs(world: World, tmp_path: Path) -> None:
    home = world.box.home
    contents = {}
    for number in range(WRITERS):
        write_audio(tmp_path / "whole.wav", seed=number, seconds=0.02)
        contents[f"{number:03}.wav"] = (tmp_path / "whole.wav").read_bytes()
    for part in range(PARTS):
        for name, data in contents.items():
            with (home.inbox / name).open("ab") as file:
                file.write(data[len(data) * part // PARTS : len(data) * (part + 1) // PARTS])
        world.look(1.0, 3.5)  # longer than the settle time: only the containers tell
        assert part == PARTS - 1 or world.box.queue.list() == []
    jobs = world.box.queue.list()[::-1]
    assert [job.source_name for job in jobs] == sorted(contents), "in the order they came"
    assert {job.state for job in jobs} == {JobState.QUEUED}
    assert files_below(home.inbox) == []
    world.look(1.0, 4.0)
    assert len(world.box.queue.list()) == WRITERS, "each once"
    for job in jobs:
        assert world.box.sources.path(job).read_bytes() == contents[job.source_name]


def test_ten_thousand_files_are_followed_in_bounded_memory(world: World) -> None:
    inbox = world.box.home.inbox
    for number in range(CROWD):
        (inbox / f"{number:05}.wav").write_bytes(b"RIFF")
    world.box.queue.drain()  # followed, judged and shown, but not taken
    tracemalloc.start()
    world.look(1.0, 4.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < CROWD * BYTES_PER_FILE
    assert len(world.box.queue.arrivals()) == MAX_ARRIVALS
    assert world.box.queue.list() == []

"""A whole life of a daemon in one call and one process: recovery, arrival, claim, render, publish, settle.

The parts are those of `jobs.daemon` and `jobs.worker`, without threads, pipes and waiting, so that a test can start
hundreds of lives. What it leaves out (supervision, signals, timing) is tested with the real daemon.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from rvc_batch.engine.containers import inspect
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.home import Home
from rvc_batch.jobs import publish
from rvc_batch.jobs.arrival import Look
from rvc_batch.jobs.daemon import recover
from rvc_batch.jobs.desk import Desk
from rvc_batch.jobs.ingest import Ingest
from rvc_batch.jobs.listing import list_inbox
from rvc_batch.jobs.messages import Assignment, Failed, Halted, Rendered
from rvc_batch.jobs.models import ACTIVE, Job
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.request import Choices
from rvc_batch.jobs.sources import Sources
from rvc_batch.jobs.worker import Worker
from tests.daemon_harness import VOICES, short_delays
from tests.fakes import FakeRenderer

LEASE_S = 30.0


@dataclass
class InlineBox:
    """The parts of a daemon of one home."""

    home: Home
    queue: Queue
    sources: Sources
    ingest: Ingest
    desk: Desk

    def candidates(self) -> dict[bytes, Look]:
        """Return what lies in the inbox, as if it had settled."""
        return list_inbox(self.home.inbox, depth=8).candidates

    def take(self, rel: bytes, look: Look) -> Job:
        """Accept a file, as the watcher does."""
        with (self.home.inbox / os.fsdecode(rel)).open("rb") as file:
            return self.ingest.accept(rel, look, inspect(file, look.size))

    def claim(self) -> Assignment | None:
        """Claim the next job."""
        return self.desk.take("inline", pid=os.getpid(), warm_voice=None)

    def render(self, assignment: Assignment) -> Rendered | Failed | Halted:
        """Do the worker's part in this process."""
        here, there = Pipe()
        with here, there:
            return render(self.home, assignment, here)

    def end(self, word: Rendered | Failed | Halted) -> None:
        """Write down what became of the job."""
        self.desk.hear(word)
        self.desk.write()


def render(home: Home, assignment: Assignment, connection: Connection[Any, Any]) -> Any:
    """Do what the worker process does with one job."""
    return Worker(connection)._run_once(FakeRenderer(home), assignment)


@contextmanager
def opened(home: Home) -> Iterator[InlineBox]:
    """Open the parts; nothing happens yet."""
    queue = Queue.open(home.database)
    choices = Choices(VOICES, "alto", ConversionSettings())
    sources = Sources(home, keep_sources=True)
    ingest = Ingest(home, queue, sources, choices=lambda: choices, max_attempts=3)
    desk = Desk(home, queue, sources, choices=lambda: choices, check_outbox=lambda: None, lease_seconds=LEASE_S)
    try:
        yield InlineBox(home, queue, sources, ingest, desk)
    finally:
        queue.close()


def live(home: Home) -> None:
    """Start, do all there is to do, stop."""
    home.create()
    with short_delays(0.0), opened(home) as box:
        recover(home, box.queue, box.ingest, box.sources)
        box.ingest.resume()
        for rel, look in box.candidates().items():
            box.take(rel, look)
        while box.queue.list(state=sorted(ACTIVE)):
            assignment = box.claim()
            if assignment is not None:
                box.end(box.render(assignment))
        box.sources.sweep(box.queue.get)


def published(home: Home) -> list[Path]:
    """Return the files of the outbox that a user sees."""
    temps = home.outbox / publish.TEMP_FOLDER
    return sorted(p for p in home.outbox.rglob("*") if p.is_file() and temps not in p.parents)

"""A clock that is set by hand, and jobs to put in a queue."""

from __future__ import annotations

import hashlib
import os
from multiprocessing.queues import Queue as ProcessQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import ConversionReport
from rvc_batch.jobs.models import Job, JobError, JobState, NewJob, Outcome
from rvc_batch.jobs.queue import Queue

EPOCH = 1_800_000_000.0
LEASE_S = 30.0


class FakeClock:
    """UTC seconds that only move when told to."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> float:
        return self.now

    def step(self, seconds: float) -> None:
        self.now += seconds


def open_queue(folder: Path, clock: FakeClock) -> Queue:
    return Queue.open(folder / "jobs.sqlite3", clock=clock)


def new_job(
    name: str = "take.wav",
    *,
    voice: str = "anna",
    content: str = "",
    priority: int = 0,
    seconds_in: float | None = 60.0,
    max_attempts: int = 3,
    settings: ConversionSettings | None = None,
) -> NewJob:
    source = f"{voice}/{name}"
    return NewJob(
        source_name=source,
        source_rel=source.encode(),
        size=1000,
        mtime_ns=1,
        device=2**64 - 7,
        inode=2**63 + 5,
        content_sha256=hashlib.sha256((content or source).encode()).hexdigest(),
        voice=voice,
        settings=settings or ConversionSettings(),
        output_rel=source.encode(),
        priority=priority,
        max_attempts=max_attempts,
        seconds_in=seconds_in,
    )


def queued(queue: Queue, name: str = "take.wav", **fields: object) -> Job:
    return queue.enqueue(queue.submit(new_job(name, **fields)).id)  # type: ignore[arg-type]


def claimed(queue: Queue, worker: str = "w1", *, warm_voice: str | None = None) -> Job:
    job = queue.claim(worker, pid=11, lease_seconds=LEASE_S, warm_voice=warm_voice)
    assert job is not None
    return job


def finished(queue: Queue, job: Job, *, seconds_in: float = 60.0, wall_seconds: float = 6.0) -> Job:
    queue.record_intent(job, output_sha256="a" * 64, output_size=123)
    return queue.finish(job, report(seconds_in=seconds_in, wall_seconds=wall_seconds))


def error(code: str = "E_INTERNAL", message: str = "it broke", stage: str = "pitch") -> JobError:
    return JobError(code=code, message=message, stage=stage, type="ValueError", traceback="Traceback …")


def report(*, seconds_in: float = 60.0, wall_seconds: float = 6.0) -> ConversionReport:
    return ConversionReport(
        samples_in=int(seconds_in * 16_000),
        rate_in=16_000,
        samples_out=int(seconds_in * 40_000),
        rate_out=40_000,
        segments=2,
        stage_seconds={"decode": 0.5, "features": 2.0, "synth": 3.0},
        wall_seconds=wall_seconds,
        peak_rss_bytes=1 << 30,
        peak_device_bytes=1 << 29,
        seed=0,
        dialect="rvc-2023",
        backend="mlx",
        voice="anna",
        voice_sha256="b" * 64,
        warnings=("3 samples clipped",),
        versions={"mlx": "0.32"},
    )


def claim_all(path: Path, worker: str, start: Barrier, taken: ProcessQueue[int]) -> None:
    """Claim one job, wait for the others to have one too, then claim until nothing is left.

    Runs in a process of its own. SQLite's lock is not fair: without the meeting one process may take everything.
    """
    queue = Queue.open(path, owner=False)
    is_waiting = True
    while (job := queue.claim(worker, pid=os.getpid(), lease_seconds=600)) is not None:
        taken.put(job.id)
        if is_waiting:
            start.wait(60)
            is_waiting = False
    taken.put(-1)


def outcomes(queue: Queue, job_id: int) -> list[Outcome | None]:
    """Return how each attempt of a job ended, in order."""
    return [a.outcome for a in queue.attempts(job_id)]


def states(queue: Queue, job_id: int) -> list[JobState]:
    """Return the states a job went through."""
    return [e.to_state for e in queue.events(job_id)]

"""What the box did in a stretch of time: how much, how fast, where the time went, and how the queue grew and shrank."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.jobs.estimate import Speed, median, speed_of
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.reading import QueueReader

BUCKETS = 48


@dataclass(frozen=True)
class Work:
    """What was done; speeds are seconds of audio per second of work."""

    done: int
    failed: int
    cancelled: int
    audio_seconds: float
    work_seconds: float
    speed: Speed | None  # of single jobs; None for fewer than three

    @property
    def realtime_factor(self) -> float | None:
        """All audio over all work; None without work."""
        return self.audio_seconds / self.work_seconds if self.work_seconds > 0 else None


@dataclass(frozen=True)
class Timeline:
    """The same over time, in buckets of equal length. Times are UTC epoch seconds.

    queue: (time, jobs queued from then on), at every change.
    """

    edges: tuple[float, ...]
    done: tuple[int, ...]
    audio_seconds: tuple[float, ...]
    stage_seconds: dict[str, tuple[float, ...]]
    queue: tuple[tuple[float, int], ...]

    @property
    def bucket_seconds(self) -> float:
        """Length of a bucket."""
        return self.edges[1] - self.edges[0]


@dataclass(frozen=True)
class Statistics:
    """Everything that `rvc-batch stats` shows."""

    since: float
    until: float
    all: Work
    realtime_factor: float | None
    voices: dict[str, Work]
    failures: dict[str, int]  # jobs by error code
    stage_seconds: dict[str, float]  # the greatest first; of every attempt that ended, failed ones too
    median_wait_seconds: float | None  # from arrival to the start of the attempt that succeeded
    timeline: Timeline


@dataclass(frozen=True)
class _Ended:
    state: str
    voice: str
    at: float
    audio: float
    work: float
    wait: float | None
    code: str | None


def read_statistics(reader: QueueReader, *, since: float, until: float) -> Statistics:
    """Sum up what ended in this stretch of time.

    Raises:
        DatabaseUnusable: the database cannot be read.
    """
    return reader.ask(lambda c: _statistics(c, since, until))


def _statistics(c: Connection, since: float, until: float) -> Statistics:
    ended = [
        _Ended(
            row.state, row.voice, row.finished_at, row.seconds_in or 0.0, row.wall_seconds or 0.0, row.wait, row.code
        )
        for row in c.execute(statements.ended_between(since, until))
    ]
    timings = [(row.ended_at, row.stage, row.seconds) for row in c.execute(statements.timings_between(since, until))]
    total = Counter[str]()
    for _, stage, seconds in timings:
        total[stage] += seconds
    waits = [max(job.wait, 0.0) for job in ended if job.state == JobState.DONE and job.wait is not None]
    voices = sorted({job.voice for job in ended})
    work = _work(ended)
    return Statistics(
        since=since,
        until=until,
        all=work,
        realtime_factor=work.realtime_factor,
        voices={voice: _work([job for job in ended if job.voice == voice]) for voice in voices},
        failures=dict(Counter(job.code or "" for job in ended if job.state == JobState.FAILED).most_common()),
        stage_seconds=dict(total.most_common()),
        median_wait_seconds=median(waits),
        timeline=_timeline(ended, timings, _queue(c, since, until), since, until),
    )


def _work(ended: Sequence[_Ended]) -> Work:
    states = Counter(job.state for job in ended)
    rendered = [job for job in ended if job.state == JobState.DONE and job.work > 0]
    return Work(
        done=states[JobState.DONE],
        failed=states[JobState.FAILED],
        cancelled=states[JobState.CANCELLED],
        audio_seconds=sum(job.audio for job in rendered),
        work_seconds=sum(job.work for job in rendered),
        speed=speed_of([job.audio / job.work for job in rendered]),
    )


def _queue(c: Connection, since: float, until: float) -> tuple[tuple[float, int], ...]:
    """Return the length of the queue at every change, counted back from what is queued now."""
    steps = [(row.at, row.step) for row in c.execute(statements.queue_steps_since(since))]
    length = int(c.execute(statements.queued_count()).scalar_one()) - sum(step for _, step in steps)
    lengths = accumulate((step for _, step in steps), initial=length)
    points = list(zip([since, *(at for at, _ in steps)], lengths, strict=True))
    within = [point for point in points if point[0] <= until]
    return (*within, (until, within[-1][1]))


def _timeline(
    ended: Sequence[_Ended],
    timings: Sequence[tuple[float, str, float]],
    queue: tuple[tuple[float, int], ...],
    since: float,
    until: float,
) -> Timeline:
    width = (until - since) / BUCKETS
    done, audio = [0] * BUCKETS, [0.0] * BUCKETS
    stages: dict[str, list[float]] = defaultdict(lambda: [0.0] * BUCKETS)

    def bucket(at: float) -> int:
        return min(int((at - since) / width), BUCKETS - 1)

    for job in ended:
        if job.state == JobState.DONE:
            done[bucket(job.at)] += 1
            audio[bucket(job.at)] += job.audio
    for at, stage, seconds in timings:
        stages[stage][bucket(at)] += seconds
    return Timeline(
        edges=tuple(since + width * number for number in range(BUCKETS + 1)),
        done=tuple(done),
        audio_seconds=tuple(audio),
        stage_seconds={stage: tuple(seconds) for stage, seconds in stages.items()},
        queue=queue,
    )

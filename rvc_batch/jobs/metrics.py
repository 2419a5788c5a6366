"""The box in Prometheus' text format: what the database and the heartbeat say, as numbers.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from rvc_batch.db import statements
from rvc_batch.home import Home
from rvc_batch.jobs.daemon_facts import DaemonFacts
from rvc_batch.jobs.models import ArrivalVerdict, JobState
from rvc_batch.jobs.overview import Backlog
from rvc_batch.jobs.reading import QueueReader
from rvc_batch.jobs.status import Status, read_status

BUCKETS_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True)
class Sample:
    """One number, and the labels that tell it from its kin; `suffix` is for the parts of a histogram."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True)
class Metric:
    """One metric. kind: gauge, counter or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def read_metrics(home: Home, reader: QueueReader, *, now: float) -> list[Metric]:
    """Return all metrics.

    Raises:
        DatabaseUnusable: the database cannot be read.
    """
    return [*_of_box(read_status(home, clock=lambda: now)), *reader.ask(lambda c: list(_of_jobs(c, now)))]


def metrics_text(metrics: Iterable[Metric]) -> str:
    """Return the metrics as text."""
    lines = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for sample in metric.samples:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
            lines.append(f"{metric.name}{sample.suffix}{f'{{{labels}}}' if labels else ''} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _of_box(status: Status) -> Iterator[Metric]:
    daemon, database = status.daemon, status.database
    yield _gauge("up", "Whether the daemon lives and speaks.", daemon.is_alive and not daemon.trouble)
    yield from _of_worker(daemon)
    yield _gauge("inbox_settling", "Files of the inbox that are not complete yet.", _settling(status))
    free = [("inbox", status.inbox.free_bytes), ("outbox", status.outbox.free_bytes)]
    yield _gauges("disk_free_bytes", "Free space.", "volume", [(name, size) for name, size in free if size is not None])
    pause = database.pause
    paused = [(pause.code or "by hand", 1.0)] if pause.paused else []
    yield _gauges("paused", "Whether jobs are held back, and why.", "reason", paused)
    yield Metric(
        "rvcb_db_busy_total",
        "counter",
        "Waits of the daemon for the database's write lock that were in vain, since its start.",
        (Sample(daemon.database_busy),),
    )
    overview = database.overview
    backlog: tuple[Backlog, ...] = () if overview is None else overview.backlog
    yield _gauge("queue_audio_seconds", "Audio that waits or is rendered.", sum(part.seconds for part in backlog))


def _of_worker(daemon: DaemonFacts) -> Iterator[Metric]:
    worker = daemon.worker
    is_up = daemon.is_alive and worker is not None and worker.state in ("idle", "busy")
    yield _gauge("worker_up", "Whether a worker can take jobs.", is_up)
    if worker is None:
        return
    if worker.age_s is not None:
        yield _gauge("worker_heartbeat_age_seconds", "Since the worker's last word.", worker.age_s)
    ends = tuple(Sample(count, {"reason": reason}) for reason, count in sorted(worker.restart_reasons.items()))
    help_ = "Workers that ended since the daemon started, by kind of reason."
    yield Metric("rvcb_worker_restarts_total", "counter", help_, ends)
    kinds = [("rss", worker.rss), ("device_active", worker.memory_active), ("device_cache", worker.memory_cache)]
    known = [(kind, size) for kind, size in kinds if size is not None]
    yield _gauges("memory_bytes", "Memory of the worker.", "kind", known)


def _of_jobs(c: Connection, now: float) -> Iterator[Metric]:
    counts = dict.fromkeys(JobState, 0) | {JobState(state): n for state, n in c.execute(statements.counts())}
    yield _gauges("jobs", "Jobs by state.", "state", [(str(state), n) for state, n in counts.items()])
    oldest = c.execute(statements.oldest_queued()).scalar_one()
    wait = 0.0 if oldest is None else max(now - oldest, 0.0)
    yield _gauge("oldest_wait_seconds", "How long the oldest queued job waits.", wait)
    success = c.execute(statements.last_success()).scalar_one()
    yield _gauge("last_success_timestamp", "When a job was last done, in UTC epoch seconds; 0 for never.", success or 0)
    failures = tuple(Sample(n, {"code": code or ""}) for code, n in c.execute(statements.failed_attempts()))
    yield Metric("rvcb_failures_total", "counter", "Attempts that failed, by error code.", failures)
    speeds = [(voice, audio / work) for voice, audio, work in c.execute(statements.work_per_voice()) if audio and work]
    yield _gauges("realtime_factor", "Seconds of audio per second of work, of all jobs done.", "voice", speeds)
    yield Metric("rvcb_job_seconds", "histogram", "Seconds of work per stage of done jobs.", tuple(_histograms(c)))


def _histograms(c: Connection) -> Iterator[Sample]:
    for row in c.execute(statements.stage_histogram(BUCKETS_S)):
        voice, stage, count, total, *within = row
        labels = {"voice": voice, "stage": stage}
        for limit, number in zip(BUCKETS_S, within, strict=True):
            yield Sample(number, labels | {"le": f"{limit:g}"}, "_bucket")
        yield Sample(count, labels | {"le": "+Inf"}, "_bucket")
        yield Sample(total, labels, "_sum")
        yield Sample(count, labels, "_count")


def _settling(status: Status) -> int:
    waiting = (ArrivalVerdict.SETTLING, ArrivalVerdict.INCOMPLETE)
    return sum(arrival.verdict in waiting for arrival in status.database.arrivals)


def _gauge(name: str, help_: str, value: float) -> Metric:
    return Metric(f"rvcb_{name}", "gauge", help_, (Sample(value),))


def _gauges(name: str, help_: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    samples = tuple(Sample(value, {label: kind}) for kind, value in values)
    return Metric(f"rvcb_{name}", "gauge", help_, samples)


def _escaped(value: str) -> str:
    clean = value.encode("utf-8", "backslashreplace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return f"{value:.17g}" if isinstance(value, float) and not float(value).is_integer() else str(int(value))

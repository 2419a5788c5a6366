"""How fast the box takes ten thousand files, how fast it claims, and what a job costs besides its rendering.

    python benchmarks/queue.py [--files 10000] [--jobs 300] [--runs 3] [--output benchmarks/results/queue.json]

A real daemon runs in a process of its own on the disk of the checkout, with the fake engine of tests/fakes.py and the
usual times. It is idle and paused when all files, one second each, appear in the inbox at once. Reported are, as
medians and spread:

* enqueue: from that moment to the last row `queued`, with and without the settle time, which is a rule and no work;
* claim: claims per second from a copy of that table, with and without a preferred voice;
* overhead: from the claim of a job to its `done`, less the time inside the engine, while all the others wait; and the
  whole cycle from one claim to the next, which also moves the source away.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, where this file would hide the standard library's queue

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import signal  # noqa: E402
import sqlite3  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from contextlib import closing, contextmanager  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import soundfile  # noqa: E402

from rvc_batch import logs  # noqa: E402
from rvc_batch.config import Settings  # noqa: E402
from rvc_batch.db.engine import back_up  # noqa: E402
from rvc_batch.engine.types import ConversionReport  # noqa: E402
from rvc_batch.home import Home  # noqa: E402
from rvc_batch.jobs.daemon import Daemon, DaemonOptions  # noqa: E402
from rvc_batch.jobs.models import Job, JobState  # noqa: E402
from rvc_batch.jobs.queue import Queue  # noqa: E402
from tests.fakes import FakeRenderer  # noqa: E402

VOICES = ("alto", "tenor")
RATE, SECONDS = 16_000, 1
CLAIMS = 500
POLL_SECONDS = 0.25


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=300, help="jobs rendered per run, of those files")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "queue.json")
    parser.add_argument("--daemon", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.daemon:
        serve(Home(options.daemon))
        return
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    load = os.getloadavg()
    runs = []
    for number in range(options.runs):
        with tempfile.TemporaryDirectory(dir=build) as folder:
            runs.append(measure(Home(Path(folder)), files=options.files, jobs=options.jobs))
        print(f"run {number + 1} of {options.runs}: {json.dumps(summary([runs[-1]]))}", flush=True)
    result = {
        "files": options.files,
        "seconds_of_each_file": SECONDS,
        "jobs_rendered_per_run": options.jobs,
        "runs": options.runs,
        **summary(runs),
        "machine": machine(build) | {"load_before": [round(x, 2) for x in load]},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


# ---------------------------------------------------------------------------------------------------------------------
# One run


@dataclasses.dataclass(frozen=True)
class Run:
    """Seconds of one run."""

    enqueue_total: float  # from the drop to the last row `queued`
    settle: float  # of that, what the arrival rule waits
    claim: list[float]
    claim_preferring_a_voice: list[float]
    overhead: list[float]  # per job, from claim to done, without the engine
    cycle: list[float]  # per job, from claim to claim, without the engine
    engine: list[float]


def measure(home: Home, *, files: int, jobs: int) -> Run:
    """Let a new box take the files, claim from a copy of its table, then render some of them."""
    home.create()
    with closing(Queue.open(home.database)) as queue:
        queue.pause("the benchmark looks at arrival alone")
    write_files(home.root / "to-drop", files)
    with daemon(home) as process, closing(Queue.open(home.database, owner=False)) as queue:
        await_until(lambda: any(w.state == "idle" for w in queue.workers()), process)
        dropped = time.time()
        for voice in VOICES:
            (home.root / "to-drop" / voice).rename(home.inbox / voice)
        await_until(lambda: queue.counts()[JobState.QUEUED] == files, process)
        queued_at = [job.queued_at for job in queue.list() if job.queued_at is not None]
        claims = {voice: claim_seconds(home, voice) for voice in (None, VOICES[-1])}
        queue.resume()
        await_until(lambda: queue.counts()[JobState.DONE] >= jobs, process)
        queue.pause("enough")
        done = queue.list(state=JobState.DONE)
        engine = {job.id: engine_seconds(queue, job) for job in done}
    return Run(
        enqueue_total=max(queued_at) - dropped,
        settle=Settings().watch.settle_seconds,
        claim=claims[None],
        claim_preferring_a_voice=claims[VOICES[-1]],
        overhead=[_known(job.finished_at) - _known(job.started_at) - engine[job.id] for job in done],
        cycle=cycles(done, engine),
        engine=list(engine.values()),
    )


def claim_seconds(home: Home, warm_voice: str | None) -> list[float]:
    """Return the seconds of each of some claims from a copy of the table."""
    copy = home.root / "copy.sqlite3"
    back_up(home.database, copy)
    seconds = []
    with closing(Queue.open(copy)) as queue:
        queue.resume()
        for _ in range(CLAIMS):
            start = time.perf_counter()
            assert queue.claim("benchmark", pid=1, lease_seconds=30, warm_voice=warm_voice) is not None
            seconds.append(time.perf_counter() - start)
    for path in home.root.glob("copy.sqlite3*"):
        path.unlink()
    return seconds


def cycles(done: list[Job], engine: dict[int, float]) -> list[float]:
    """Return per job the seconds until the next claim, without those in the engine."""
    ordered = sorted(done, key=lambda job: _known(job.started_at))
    return [
        _known(after.started_at) - _known(job.started_at) - engine[job.id] for job, after in itertools.pairwise(ordered)
    ]


def engine_seconds(queue: Queue, job: Job) -> float:
    """Return how long the renderer had the job, as `TimedRenderer` reported it."""
    assert job.wall_seconds is not None
    return job.wall_seconds


def _known(at: float | None) -> float:
    assert at is not None
    return at


def write_files(folder: Path, count: int) -> None:
    """Write that many WAV files, no two alike, to a folder per voice, and wait until they are on the disk."""
    noise = np.random.default_rng(0).integers(-3000, 3000, RATE * SECONDS, dtype=np.int16)
    for voice in VOICES:
        (folder / voice).mkdir(parents=True)
    for number in range(count):
        noise[:2] = divmod(number, 1 << 15)
        soundfile.write(folder / VOICES[number % 2] / f"take {number:05}.wav", noise, RATE, subtype="PCM_16")
    os.sync()


# ---------------------------------------------------------------------------------------------------------------------
# The daemon


class TimedRenderer(FakeRenderer):
    """The fake engine, which says truly how long it took."""

    def render(self, *arguments: Any, **named: Any) -> ConversionReport:
        start = time.perf_counter()
        report = super().render(*arguments, **named)
        return dataclasses.replace(report, wall_seconds=time.perf_counter() - start)


def open_engine(home: Home, settings: Settings) -> TimedRenderer:
    """The factory for `DaemonOptions.engine`."""
    return TimedRenderer(home)


def serve(home: Home) -> None:
    """Be the daemon: everything as in service but the engine and the names of the voices."""
    logs.configure(home.logs, level="info")
    options = DaemonOptions(engine="benchmarks.queue:open_engine", voices=lambda *_: VOICES)
    Daemon(home, Settings(), options).run()


@contextmanager
def daemon(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon of a home, and stop it as a service manager would."""
    log = home.state / "benchmark.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, __file__, "--daemon", home.root], stdout=output, stderr=output)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        if process.wait(30):
            raise SystemExit(log.read_text(errors="replace"))
    finally:
        process.kill()
        process.wait()


def await_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is true of a daemon that lives."""
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"the daemon ended with status {process.returncode}")
        time.sleep(POLL_SECONDS)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def summary(runs: list[Run]) -> dict[str, Any]:
    """Return medians and spread of all runs together."""
    every = {f.name: [x for run in runs for x in getattr(run, f.name)] for f in dataclasses.fields(Run)[2:]}
    return {
        "enqueue_seconds": spread([run.enqueue_total - run.settle for run in runs], digits=2),
        "enqueue_seconds_with_settling": spread([run.enqueue_total for run in runs], digits=2),
        "claims_per_second": round(1 / statistics.median(every["claim"])),
        "claim_ms": spread_ms(every["claim"]),
        "claim_preferring_a_voice_ms": spread_ms(every["claim_preferring_a_voice"]),
        "overhead_ms": spread_ms(every["overhead"]),
        "cycle_ms": spread_ms(every["cycle"]),
        "engine_ms": spread_ms(every["engine"]),
    }


def spread_ms(seconds: list[float]) -> dict[str, float]:
    """Return `spread` in milliseconds."""
    return spread([s * 1e3 for s in seconds], digits=2)


def spread(values: list[float], *, digits: int) -> dict[str, float]:
    """Return median, extremes and the middle eight tenths."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    if len(values) >= 10:
        tenths = statistics.quantiles(values, n=10)
        found |= {"tenth": tenths[0], "ninetieth": tenths[-1]}
    return {name: round(value, digits) for name, value in found.items()}


def machine(folder: Path) -> dict[str, Any]:
    """Name what it was measured on, with the cost of one durable write there."""
    mounts = {p.mountpoint: p.fstype for p in psutil.disk_partitions(all=True)}
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": "none: the engine is the fake one",
        "file_system": next(mounts[str(p)] for p in (folder, *folder.parents) if str(p) in mounts),
        "durable_write_ms": spread_ms(durable_write_seconds(folder)),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def durable_write_seconds(folder: Path, times: int = 100) -> list[float]:
    """Return the seconds of each of some small writes with fsync at the end of a file."""
    seconds = []
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return seconds


def processor() -> str:
    """Return the name of the processor as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()

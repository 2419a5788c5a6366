"""Time two sides of one comparison, each in a process of its own, asked in turn.

A benchmark script starts one long-lived child per side (`Side`), which loads its networks once and answers requests:
one JSON line in, one JSON line out. `alternate` asks A, B, A, B, so that a busy neighbour or a warm processor meets
both alike; `compare` turns the samples into medians, quartiles and the ratio of the medians. The child is the same
script, running `serve`. Nothing here knows what is measured, and neither side ever shares a process with the other:
two OpenMP runtimes in one process disturb each other.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import psutil

__all__ = ["Sample", "Side", "alternate", "compare", "machine_facts", "serve", "spread", "write_result"]

Facts = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
QUIET_SHARE = 0.1  # of the machine in other hands: above it a run is called disturbed


@dataclass(frozen=True)
class Sample:
    """One answer: what it took, and what the worker says of the result."""

    wall_seconds: float
    cpu_seconds: float  # of the worker, all its threads together
    other_share: float  # of all cores, used by other processes meanwhile; 0–1
    facts: Facts


class Side:
    """One side of a comparison: a child process that answers requests. `facts` is what it said of itself."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start the child and wait until it is ready.

        Args:
            command: arguments for Python, the script first; it must call `serve`.
            environment: variables to add, for example thread counts that must be there before a library is loaded.

        Raises:
            RuntimeError: the child ended before it was ready; its message went to standard error.
        """
        self._command = list(command)
        self._child = subprocess.Popen(
            [sys.executable, "-P", *command],  # without the script's folder, whose queue.py is not Python's own
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        self.facts: Facts = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Facts) -> Sample:
        """Have the request answered once."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        answer = self._answer()
        return Sample(answer["wall_seconds"], answer["cpu_seconds"], answer["other_share"], answer["facts"])

    def close(self) -> None:
        """End the child: it leaves when its standard input ends."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()

    def _answer(self) -> Facts:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"{' '.join(self._command)} ended with exit status {self._child.returncode}")
        answer: Facts = json.loads(line)
        return answer


def serve(facts: Facts, prepare: Callable[[Facts], Callable[[], Facts | None]]) -> None:
    """Be the child: say `facts`, then answer requests until standard input ends.

    Args:
        facts: what this side is: device, versions, threads.
        prepare: turns a request into the work to be timed. The work must wait for its result to be computed; what it
            returns goes into `Sample.facts`. Loading inputs belongs before the work, saving results for a comparison
            into a request of its own.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with answers

    def say(answer: Facts) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say(facts)
    for line in sys.stdin:
        work = prepare(json.loads(line))
        busy, cpu, wall = _busy_seconds(), time.process_time(), time.perf_counter()
        found = work()
        wall, cpu, busy = time.perf_counter() - wall, time.process_time() - cpu, _busy_seconds() - busy
        other = max(0.0, busy - cpu) / (wall * (os.cpu_count() or 1))
        say({"wall_seconds": wall, "cpu_seconds": cpu, "other_share": min(1.0, other), "facts": found or {}})


def alternate(sides: Mapping[str, Side], request: Facts, *, runs: int, warm_ups: int = 1) -> dict[str, list[Sample]]:
    """Ask all sides in turn, `runs` times each after `warm_ups` that are not counted."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for run in range(warm_ups + runs):
        for name, side in sides.items():
            sample = side.ask(request)
            if run >= warm_ups:
                samples[name].append(sample)
    return samples


def compare(samples: Mapping[str, Sequence[Sample]], *, baseline: str) -> Facts:
    """Return medians and quartiles per side, and for every side but the baseline the ratio baseline / side.

    A ratio above one means that the side is faster than the baseline. `pair_ratio` is the spread of the same ratio
    over the pairs that ran one after the other.
    """
    result: Facts = {}
    base = samples[baseline]
    for name, taken in samples.items():
        row: Facts = {
            "wall_seconds": spread([s.wall_seconds for s in taken]),
            "cpu_seconds": spread([s.cpu_seconds for s in taken]),
        }
        if name != baseline:
            row["ratio"] = round(_median_wall(base) / _median_wall(taken), 3)
            row["cpu_ratio"] = round(_median_cpu(base) / _median_cpu(taken), 3)
            pairs = [b.wall_seconds / s.wall_seconds for b, s in zip(base, taken, strict=True)]
            row["pair_ratio"] = spread(pairs)
        result[name] = row
    shares = [s.other_share for taken in samples.values() for s in taken]
    result["other_share"] = spread(shares)
    result["is_quiet"] = statistics.median(shares) <= QUIET_SHARE
    return result


def spread(values: Sequence[float]) -> Facts:
    """Return median, quartiles, extremes and count, to four significant digits."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    names = ("median", "lower_quartile", "upper_quartile", "lowest", "highest")
    numbers = (statistics.median(values), quartiles[0], quartiles[2], min(values), max(values))
    return {name: float(f"{number:.4g}") for name, number in zip(names, numbers, strict=True)} | {"runs": len(values)}


def machine_facts(*packages: str) -> Facts:
    """Return what the numbers depend on: processor, cores, memory, system, load, and the versions of packages."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": {name: version(name) for name in packages},
    }


def processor() -> str:
    """Return the name of the processor as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        return names[0] if names else platform.processor()
    return platform.processor()


def write_result(path: Path, result: Facts) -> None:
    """Write a result as the JSON that is committed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _busy_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used so far."""
    times = psutil.cpu_times()
    idle: float = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    # guest time is counted in user time already
    everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return float(everything - idle)


def _median_wall(samples: Sequence[Sample]) -> float:
    return statistics.median(s.wall_seconds for s in samples)


def _median_cpu(samples: Sequence[Sample]) -> float:
    return statistics.median(s.cpu_seconds for s in samples)

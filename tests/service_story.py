"""The story of a service under a supervisor that starts, stops, kills and restarts it, where systemd does not run.

    python -m tests.service_story [--jobs 200] [--restarts 10] [--kills 10] [--seed 1] [--output FILE.json]

`Keeper` does what launchd and systemd do for the daemon: it starts it, and starts it again whenever it ends though
nobody asked for that. The story drops files all the while, restarts the daemon (every other time by SIGKILL, without a
word of warning) and kills workers in the middle of a job. At the end every file must have become one job, one result
and one source in processed/, whatever happened to it on the way. The engine is the fake one; all else is real.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rvc_batch.home import Home
from rvc_batch.jobs.invariants import check_home
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.queue import Queue
from tests.daemon_harness import DaemonProcess, drop, jobs_of
from tests.job_fakes import files_below

RENDER_SECONDS = 0.1
VICTIM_SECONDS = 1.5  # long enough to be hit in the middle
RESTART_SECONDS = 0.2  # what systemd calls RestartSec
PATIENCE_S = 900.0


class Keeper:
    """Keeps one daemon running until told otherwise."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.starts = 0
        self._is_over = False
        self._daemon: DaemonProcess | None = None
        self._thread = threading.Thread(target=self._keep, name="keeper")

    def start(self) -> None:
        """Start it, and go on starting it."""
        self._thread.start()

    def end(self, number: signal.Signals) -> None:
        """Send the daemon a signal; whatever it makes of it, it is started again."""
        daemon, before = self._daemon, self.starts
        assert daemon is not None
        daemon.process.send_signal(number)
        wait_until(lambda: self.starts > before, f"the daemon is started again after {number.name}")

    def stop(self) -> int:
        """End it for good; return its exit status."""
        self._is_over = True
        daemon = self._daemon
        assert daemon is not None
        daemon.process.send_signal(signal.SIGTERM)
        self._thread.join()
        return daemon.process.returncode

    def _keep(self) -> None:
        while not self._is_over:
            self._daemon = DaemonProcess(self._home)
            self.starts += 1
            self._daemon.process.wait()
            self._daemon.end()
            time.sleep(RESTART_SECONDS)


@dataclass(frozen=True)
class Outcome:
    """What became of the story."""

    jobs: int
    done: int
    lost: int  # files that are no job, or jobs without their result
    twice: int  # results or jobs beyond one per file
    daemon_starts: int
    restarts_by_sigterm: int
    restarts_by_sigkill: int
    worker_kills: int
    attempts: dict[str, int]
    renders: int
    violations: list[str]
    seconds: float


def tell(home: Home, *, jobs: int, restarts: int, kills: int, seed: int) -> Outcome:
    """Tell the story in a home of its own and count."""
    began, dice = time.monotonic(), random.Random(seed)
    keeper, terms = Keeper(home), -(-restarts // 2)
    deeds = [*[signal.SIGTERM] * terms, *[signal.SIGKILL] * (restarts - terms), *[None] * kills]
    dice.shuffle(deeds)
    chosen = set(dice.sample(range(jobs), len(deeds)))
    names = [f"slow-{VICTIM_SECONDS if number in chosen else RENDER_SECONDS}-{number:03}.wav" for number in range(jobs)]
    keeper.start()
    for number, name in enumerate(names):
        drop(home, f"alto/{name}", seed=number)
        if number in chosen:
            deed, worker = deeds.pop(), worker_at(home, name)
            if deed is None:
                os.kill(worker, signal.SIGKILL)
            else:
                keeper.end(deed)
    wait_until(lambda: sum(job.state is JobState.DONE for job in jobs_of(home)) >= jobs, "every job is done")
    wait_until(lambda: not files_below(home.work), "every source has settled")
    status = keeper.stop()
    assert status == 0, f"the daemon ended with {status}"
    return count(home, keeper, names, seconds=time.monotonic() - began, kills=kills, terms=terms, restarts=restarts)


def worker_at(home: Home, name: str) -> int:
    """Wait until a worker is in the middle of this file; return its process."""

    def is_running() -> bool:
        newest = (job for job in reversed(jobs_of(home)) if Path(job.source_name).name == name)
        job = next(newest, None)
        return job is not None and job.state is JobState.RUNNING and job.progress_done > 0

    wait_until(is_running, f"{name} is rendered")
    return int(json.loads((home.state / "daemon.json").read_text())["worker"]["pid"])


def count(
    home: Home, keeper: Keeper, names: list[str], *, seconds: float, kills: int, terms: int, restarts: int
) -> Outcome:
    """Compare what was dropped with what is there."""
    found = jobs_of(home)
    rows = Counter(Path(job.source_name).name for job in found)
    results = Counter(Path(name).name for name in files_below(home.outbox))
    sources = Counter(Path(name).name for name in files_below(home.processed))
    right = [job for job in found if job.state is JobState.DONE and digest(home, job.output_rel) == job.output_sha256]
    done = {Path(job.source_name).name for job in right}
    with closing(Queue.open_readonly(home.database)) as queue:
        attempts = Counter(str(attempt.outcome) for job in found for attempt in queue.attempts(job.id))
    lost = sum(not (name in done and rows[name] and results[name] and sources[name]) for name in names)
    strangers = sum((results - Counter(names)).values())
    return Outcome(
        jobs=len(names),
        done=len(right),
        lost=lost,
        twice=sum((rows - Counter(names)).values()) + strangers + max(0, attempts["done"] - len(names)),
        daemon_starts=keeper.starts,
        restarts_by_sigterm=terms,
        restarts_by_sigkill=restarts - terms,
        worker_kills=kills,
        attempts=dict(sorted(attempts.items())),
        renders=len((home.state / "renders.log").read_text().splitlines()),
        violations=[f"{violation.rule} {violation.what}" for violation in check_home(home, is_live=False)],
        seconds=round(seconds, 1),
    )


def digest(home: Home, output_rel: bytes) -> str:
    try:
        return hashlib.sha256((home.outbox / os.fsdecode(output_rel)).read_bytes()).hexdigest()
    except OSError:
        return ""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = tell(
            Home(Path(folder)),
            jobs=options.jobs,
            restarts=options.restarts,
            kills=options.kills,
            seed=options.seed,
        )
    text = json.dumps(asdict(outcome) | {"seed": options.seed}, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if outcome.lost or outcome.twice or outcome.violations:
        sys.exit("files were lost or done twice, or an invariant is broken")


if __name__ == "__main__":
    main()

"""A soak with a nemesis: a real daemon with the fake engine, producers, and somebody who breaks what can be broken.

    python -m tests.soak [--minutes M] [--seed S] [--report FILE]        `make soak MINUTES=15 SEED=1`

For the given time files are dropped while the nemesis kills, stops and restarts daemon and worker, holds the database,
fills and unmounts volumes, cancels and retries. In the last third it leaves the daemon process alive, so that its
memory and descriptors can be seen to stay flat. Then all is put right, the box works off what is left, and everything
that was ever dropped is accounted for. The same seed gives the same files and the same order of blows; when each falls
depends on the machine. Inbox and outbox are volumes of their own where the system lets us mount.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import soundfile

from rvc_batch.home import Home
from rvc_batch.jobs import durable, publish
from rvc_batch.jobs.doctor import examine
from rvc_batch.jobs.machine_probe import MachineFacts
from rvc_batch.jobs.models import ACTIVE, Job, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.sources import Sources
from tests import inline_box
from tests.daemon_harness import eventually, jobs_of
from tests.nemesis import SETTINGS, Nemesis, Volumes, can_mount
from tests.soak_inputs import Drop, Producers

PATIENCE_S = 1200.0  # for the box to work off what is left
WARM_UP_S = 15.0
# What a job may fail with because of the nemesis; it is retried at the end.
NOT_ITS_FAULT = ("E_CRASHED", "E_CRASH_REPEATED", "E_ABANDONED", "E_INTERNAL", "E_OUTPUT_INVALID", "E_SOURCE_CHANGED")
NO_FAULT_OF_A_FAKE = ("content network", "pitch network", "voices", "device", "codecs", "BLAS", "backup", "free space")


class Samples:
    """Memory and descriptors of each life of the daemon, about once a second."""

    def __init__(self) -> None:
        self.lives: dict[int, list[tuple[float, int, int]]] = {}  # pid → (uptime, bytes, descriptors)

    def take(self, home: Home) -> None:
        try:
            beat = json.loads((home.state / "daemon.json").read_bytes())
            process = psutil.Process(beat["pid"])
            uptime = time.time() - process.create_time()
            if uptime > WARM_UP_S:
                life = self.lives.setdefault(beat["pid"], [])
                life.append((uptime, process.memory_info().rss, process.num_fds()))
        except (OSError, ValueError, psutil.Error):
            return

    def longest(self) -> dict[str, Any]:
        """Say how the longest life used memory and descriptors in its first and last quarter."""
        life = max(self.lives.values(), key=len, default=[])
        quarter = max(1, len(life) // 4)
        first, last = life[:quarter], life[-quarter:]
        if not life:
            return {}
        return {
            "seconds": round(life[-1][0]),
            "rss_mb": [round(max(s[1] for s in part) / 1e6, 1) for part in (first, last)],
            "descriptors": [max(s[2] for s in part) for part in (first, last)],
        }


def soak(home: Home, *, minutes: float, seed: int) -> dict[str, Any]:
    """Run it; return the report.

    Raises:
        AssertionError: something was lost, done twice, left over, or grew.
    """
    volumes = Volumes(home)
    home.create()
    home.config_file.write_text(SETTINGS)
    volumes.mount_all()
    producers = Producers(
        volumes.inbox, seed=seed, backlog=lambda dropped: dropped - ended(home), limit=40, has_empty_files=minutes >= 3
    )
    nemesis, samples = Nemesis(home, volumes, seed), Samples()
    started, end = time.monotonic(), time.monotonic() + minutes * 60
    nemesis.daemon.start()
    try:
        producers.start()
        while (now := time.monotonic()) < end:
            nemesis.strike(spares_daemon=now - started > minutes * 60 * 2 / 3)
            samples.take(home)
            nemesis.daemon.restart_if_gone()
        producers.stop()
        nemesis.relent()
        settle(home, nemesis, producers)
        assert nemesis.daemon.stop() == 0
    except BaseException:
        print(nemesis.daemon.tail())
        raise
    finally:
        producers.stop()
        nemesis.relent()
        nemesis.daemon.end()
    report = account(home, producers.drops, producers.ignored)
    report |= {
        "seed": seed,
        "minutes": minutes,
        "mounts": volumes.are_real,
        "blows": dict(sorted(nemesis.done.items())),
        "lives_of_the_daemon": nemesis.daemon.lives,
        "longest_life": samples.longest(),
    }
    if minutes >= 3:
        assert_flat(report["longest_life"])
    volumes.unmount_all()
    return report


def ended(home: Home) -> int:
    """Return how many jobs have ended; 0 while the database cannot be read."""
    return sum(job.state not in ACTIVE for job in jobs_of(home))


def settle(home: Home, nemesis: Nemesis, producers: Producers) -> None:
    """Wait until all is worked off, give every job another chance that failed for no fault of its own, wait again."""
    expected = {drop.rel: drop.code for drop in producers.drops}

    def is_idle() -> bool:
        nemesis.daemon.restart_if_gone()
        jobs = jobs_of(home)
        return len(jobs) == len(producers.drops) and not any(job.state in ACTIVE for job in jobs)

    eventually(is_idle, "all is worked off", PATIENCE_S)
    for _ in range(3):
        queue = Queue.open(home.database, owner=False)
        again = [
            job.id
            for job in queue.list(state=(JobState.FAILED, JobState.CANCELLED))
            if job.state is JobState.CANCELLED  # its error is that of an attempt before, and was got over
            or job.error is None
            or (job.error.code != expected[job.source_rel] and job.error.code in NOT_ITS_FAULT)
        ]
        for number in again:
            queue.retry(number)
        queue.close()
        eventually(is_idle, "what was retried is worked off", PATIENCE_S)


# --- the account ------------------------------------------------------------------------------------------------------


def account(home: Home, drops: list[Drop], ignored: set[bytes]) -> dict[str, Any]:
    """Find every input again and check that the folders hold nothing else.

    Raises:
        AssertionError: it does not add up.
    """
    rows: dict[tuple[bytes, str], list[Job]] = {}
    for job in jobs_of(home):
        rows.setdefault((job.source_rel, job.content_sha256), []).append(job)
    states: Counter[str] = Counter()
    for drop in drops:
        found = rows.pop((drop.rel, drop.sha256), [])
        assert len(found) == 1, f"{drop} has {len(found)} jobs"
        check_outcome(home, drop, found[0])
        states[f"{drop.kind}: {found[0].state}"] += 1
    assert rows == {}, "jobs of nothing that was dropped"
    jobs = jobs_of(home)
    done = [job for job in jobs if job.state is JobState.DONE]
    outputs = {publish.output_path(home.outbox, job) for job in done}
    assert len(outputs) == len(done), "two jobs with one output"
    assert set(inline_box.published(home)) == outputs, "the outbox holds one result per job that is done"
    left = {os.fsencode(p.relative_to(home.inbox)) for p in home.inbox.rglob("*") if not p.is_dir()}
    assert left - {b".rvc-batch-inbox"} == ignored, "the inbox holds what is no audio, and nothing else"
    assert list(home.work.iterdir()) == [], "work/ is empty"
    temps = [p for p in home.root.rglob("*.part") if os.fsencode(p.relative_to(home.inbox.parent))[6:] not in ignored]
    assert temps == [], f"temporary files are left: {temps}"
    findings = [f for f in examine(home, deep=True, probe=no_machine) if f.check not in NO_FAULT_OF_A_FAKE]
    faults = [f for f in findings if f.level == "fault"]
    assert faults == [], faults
    assert [f.what for f in findings if f.check == "invariants"] == [
        "I1 to I12 hold; every page of the database is sound"
    ]
    return {
        "inputs": len(drops),
        "ignored": len(ignored),
        "states": dict(Counter(str(job.state) for job in jobs)),
        "attempts": sum(job.claim_no for job in jobs),
        "kinds": dict(sorted(states.items())),
    }


def check_outcome(home: Home, drop: Drop, job: Job) -> None:
    """A file has one outcome, the one it must have, and its bytes are where they belong."""
    if drop.code:
        assert (job.state, job.error and job.error.code) == (JobState.FAILED, drop.code), (drop, job)
    else:
        assert job.state is JobState.DONE, (drop, job)
    if job.state is JobState.DONE:
        assert publish.is_published(home.outbox, job), (drop, job)
        with publish.output_path(home.outbox, job).open("rb") as result:  # its name need not be UTF-8
            assert soundfile.info(result).frames == drop.samples, (drop, job)
        if drop.keeps_bytes:
            assert any(map(is_source(drop), beside(home.processed, drop))), f"{drop} is not in processed/"
    else:
        placed = Sources(home, keep_sources=True).set_aside(job)
        assert placed is not None, f"{drop} is not in failed/"
        assert drop.code in placed.with_name(f"{placed.name}.error.txt").read_text()


def beside(base: Path, drop: Drop) -> list[Path]:
    """Return the files that may be this source: same folder, same name with or without a number."""
    place = base / os.fsdecode(drop.rel)
    return [p for p in place.parent.iterdir() if p.name.startswith(place.stem[:200]) and p.is_file()]


def is_source(drop: Drop) -> Any:
    return lambda path: durable.digest(path)[0] == drop.sha256


def no_machine(_backend: str) -> MachineFacts:
    return MachineFacts(trouble="not asked", device="", gflops=None, blas="", blas_path="", codecs=())


def assert_flat(life: dict[str, Any]) -> None:
    """The last quarter of the longest life uses about as much as the first."""
    first, last = life["descriptors"]
    assert last <= first + 3, life
    first, last = life["rss_mb"]
    assert last <= first * 1.15 + 5, life


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    if os.environ.get("RVC_BATCH_SOAK") != "mounted" and can_mount():
        command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        os.execvpe("unshare", command, os.environ | {"RVC_BATCH_SOAK": "mounted"})
    os.environ.pop("RVC_BATCH_SOAK", None)
    folder = Path(tempfile.mkdtemp(prefix="rvc-batch-soak-"))
    report = soak(Home(folder / "home"), minutes=options.minutes, seed=options.seed)
    shutil.rmtree(folder)
    text = json.dumps(report, indent=1)
    if options.report is not None:
        options.report.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

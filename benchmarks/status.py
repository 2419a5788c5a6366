"""How long `rvc-batch status` takes, from the start of the process to its end, with ten thousand jobs in the table.

    python benchmarks/status.py [--jobs 10000] [--runs 15] [--output benchmarks/results/status.json]

The table holds what a busy box would: mostly done jobs with attempts and stage timings, the last day among them, some
failures, a thousand waiting. Writes medians, the parts of the time that are not ours (starting Python, importing the
command line framework), and what importing SQLAlchemy would add, which `status` does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.measuring import machine_facts, write_result  # noqa: E402
from rvc_batch.db.engine import open_writer  # noqa: E402
from rvc_batch.db.schema import attempts, events, jobs, stage_timings  # noqa: E402
from rvc_batch.engine.settings import ConversionSettings  # noqa: E402
from rvc_batch.home import Home  # noqa: E402
from rvc_batch.jobs.queue import Queue  # noqa: E402

STAGES = ("decode", "features", "pitch", "index", "synth", "encode")
WAITING_SHARE, FAILED_SHARE = 0.1, 0.02
SECONDS_BETWEEN = 60.0  # jobs that are done ended this far apart: 1440 of them in the last day


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a table, time the command, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "status.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.create()
        fill(home.database, options.jobs)
        command = ["-m", "rvc_batch", "--home", folder, "status"]
        timed = {
            "status": measure(command, options.runs, expected=2),
            "status_json": measure([*command, "--json"], options.runs, expected=2),
            "python_alone": measure(["-c", "pass"], options.runs),
            "import_typer_and_pydantic": measure(["-c", "import typer, typer._coercion, pydantic.types"], options.runs),
            "import_sqlalchemy": measure(["-c", "import sqlalchemy"], options.runs),
        }
        database_bytes = home.database.stat().st_size
    result = {
        "jobs": options.jobs,
        "runs": options.runs,
        "database_bytes": database_bytes,
        "median_seconds": {name: round(statistics.median(runs), 3) for name, runs in timed.items()},
        "fastest_seconds": {name: round(min(runs), 3) for name, runs in timed.items()},
        "machine": machine_facts("sqlalchemy", "typer", "pydantic"),
    }
    write_result(options.output, result)
    print(json.dumps(result, indent=2))


def measure(arguments: list[str], runs: int, *, expected: int = 0) -> list[float]:
    """Return wall seconds of each run of a Python process; one warm-up run is not counted."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
        seconds.append(time.perf_counter() - start)
        if done.returncode != expected:
            raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")
    return seconds[1:]


def fill(path: Path, count: int) -> None:
    """Write `count` jobs with their history in one transaction."""
    Queue.open(path).close()
    database = open_writer(path, checkpoints=True)
    now = time.time()
    rows = [job_row(number, count, now) for number in range(1, count + 1)]
    ended = [row for row in rows if row["finished_at"] is not None]
    database.write(lambda c: c.execute(jobs.insert(), rows))
    database.write(lambda c: c.execute(attempts.insert(), [attempt_row(row) for row in ended]))
    database.write(lambda c: c.execute(stage_timings.insert(), [t for row in ended for t in timing_rows(row)]))
    database.write(lambda c: c.execute(events.insert(), [e for row in rows for e in event_rows(row)]))
    database.close()


def job_row(number: int, count: int, now: float) -> dict[str, Any]:
    """Return one job: the last tenth waits, every fiftieth failed, the others are done."""
    is_waiting = number > count * (1 - WAITING_SHARE)
    is_failed = not is_waiting and number % round(1 / FAILED_SHARE) == 0
    settings = ConversionSettings(seed=number)
    ended = None if is_waiting else now - (count - number) * SECONDS_BETWEEN
    voice = ("anna", "tom", "maria")[number % 3]
    return {
        "id": number,
        "public_id": f"{number:012x}",
        "state": "queued" if is_waiting else "failed" if is_failed else "done",
        "priority": 0,
        "source_name": f"{voice}/episode {number}.wav",
        "source_rel": f"{voice}/episode {number}.wav".encode(),
        "source_size": 10_000_000,
        "source_mtime_ns": 0,
        "source_device": 1,
        "source_inode": number,
        "content_sha256": f"{number:064x}",
        "voice": voice,
        "voice_sha256": None if is_waiting or is_failed else "b" * 64,
        "settings_json": settings.to_json(),
        "settings_hash": settings.digest(),
        "dedupe_key": f"{number:064x}",
        "output_rel": f"{voice}/episode {number}.wav".encode(),
        "output_key": f"{voice}/episode {number}.wav".encode() if is_waiting else None,
        "output_sha256": None if is_waiting or is_failed else "a" * 64,
        "output_size": None if is_waiting or is_failed else 20_000_000,
        "seconds_in": 180.0,
        "claim_no": 0 if is_waiting else 1,
        "attempt": 0 if is_waiting else 1,
        "max_attempts": 3,
        "budget": 3,
        "crashes": 0,
        "refunds": 0,
        "run_after": 0.0,
        "cancel_requested": False,
        "progress_done": 0.0 if is_waiting else 180.0,
        "progress_total": 180.0,
        "created_at": now - 90_000.0 if ended is None else ended - 100.0,
        "queued_at": now - 90_000.0 if ended is None else ended - 99.0,
        "started_at": None if ended is None else ended - 20.0,
        "finished_at": ended,
        "wall_seconds": None if is_waiting or is_failed else 15.0 + number % 7,
        "error_code": "E_INPUT_TRUNCATED" if is_failed else None,
        "error_message": "header promises 3:10, file holds 1:02" if is_failed else None,
        "error_stage": "decode" if is_failed else None,
        "error_type": "InputTruncated" if is_failed else None,
        "error_traceback": "Traceback\n" * 20 if is_failed else None,
        "warnings_json": "[]",
    }


def attempt_row(job: dict[str, Any]) -> dict[str, Any]:
    """Return the one attempt of a job that ended."""
    return {
        "id": job["id"],
        "job_id": job["id"],
        "claim_no": 1,
        "worker_id": "w",
        "host": "box",
        "pid": 1,
        "started_at": job["started_at"],
        "ended_at": job["finished_at"],
        "outcome": job["state"],
        "report_json": json.dumps({"segments": 5, "versions": {"mlx": "0.32"}}),
    }


def timing_rows(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stage timings of that attempt."""
    return [{"attempt_id": job["id"], "seq": seq, "stage": stage, "seconds": 2.5} for seq, stage in enumerate(STAGES)]


def event_rows(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the journal of a job."""
    path = [None, "ingesting", "queued"] + ([] if job["state"] == "queued" else ["running", job["state"]])
    steps = itertools.pairwise(path)
    return [
        {"job_id": job["id"], "at": job["created_at"], "from_state": a, "to_state": b, "actor": "x", "note": ""}
        for a, b in steps
    ]


if __name__ == "__main__":
    main()

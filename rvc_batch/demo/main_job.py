"""The main job, end to end, in a home of its own: what `rvc-batch demo` and `make demo` show.

A daemon is started as a user would start it; speech of each voice is dropped into the inbox of the other; when the
results are in the outbox, `status` is shown, a picture drawn, and the daemon stopped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rvc_batch.demo.box import SPEECH, VOICES, make_box
from rvc_batch.errors import OutputInvalid
from rvc_batch.home import Home

__all__ = ["show"]

PATIENCE_S = 300
STOP_PATIENCE_S = 60
SEEN = 100  # jobs of the home that are looked at

Say = Callable[[str], None]


def show(folder: Path, say: Say) -> list[Path]:
    """Run the demonstration in a folder and return what came out.

    Args:
        say: is given one line at a time.

    Raises:
        HomeInvalid, FolderGone: see `make_box`. OutputInvalid: the daemon ended, a job failed, or it took too long.
    """
    home = Home(folder.absolute())
    say(f"1/5 home: {folder}, with the voices {' and '.join(VOICES)} (small, trained on synthetic speech)")
    make_box(home)
    say(f"2/5 daemon: rvc-batch --home {folder} run")
    with (home.root / "daemon.log").open("w", encoding="utf-8") as log:
        daemon = subprocess.Popen(_command(home, "run"), stdout=log, stderr=subprocess.STDOUT, env=_environment())
        try:
            known = {job["id"] for job in _jobs(home)}
            dropped = [_drop(home, speaker, into=other) for speaker, other in zip(VOICES, VOICES[::-1], strict=True)]
            say(f"3/5 dropped: {', '.join(str(folder / path) for path in dropped)}")
            results = _wait_for([path.name for path in dropped], known, home, daemon)
            say("4/5 status")
            shown = subprocess.run(
                _command(home, "status"), capture_output=True, text=True, check=False, env=_environment()
            )
            say(shown.stdout.rstrip())
            say("5/5 results")
            for path, result in zip(dropped, results, strict=True):
                say(f"      {path.name} → {folder / result.relative_to(home.root)}")
                say(f"      {_draw(home, SPEECH / path.name, result, folder)}")
        finally:
            _stop(daemon)
    if daemon.returncode != 0:
        raise OutputInvalid(f"the daemon ended with {daemon.returncode}; {log.name} says why")
    say(f"done: the daemon has stopped; everything is in {folder}, and `rvc-batch --home {folder} run` goes on with it")
    return results


def _drop(home: Home, speaker: str, *, into: str) -> Path:
    """Copy speech under a hidden name and rename it, so that nobody sees half a file; returns it within the home."""
    place = home.inbox / into
    place.mkdir(parents=True, exist_ok=True)
    target, hidden = place / f"{speaker}.flac", place / f".{speaker}.flac"
    shutil.copyfile(SPEECH / target.name, hidden)
    hidden.rename(target)
    return target.relative_to(home.root)


def _wait_for(names: list[str], known: set[int], home: Home, daemon: subprocess.Popen[bytes]) -> list[Path]:
    """Return the file that each name became."""
    log = home.root / "daemon.log"
    deadline = time.monotonic() + PATIENCE_S
    with tqdm(total=len(names), unit="file", bar_format="      {desc} {n}/{total} files, {elapsed}") as bar:
        while time.monotonic() < deadline:
            if daemon.poll() is not None:
                raise OutputInvalid(f"the daemon ended early with {daemon.returncode}; {log} says why")
            jobs = {Path(job["source_name"]).name: job for job in _jobs(home) if job["id"] not in known}
            for job in jobs.values():
                if job["state"] in ("failed", "cancelled"):
                    raise OutputInvalid(f"job {job['id']} {job['state']}: {job['error']}; {log} says more")
            finished = sum(job["state"] == "done" for job in jobs.values())
            stages = [str(job["stage"] or "starting") for job in jobs.values() if job["state"] == "running"]
            bar.set_description_str(stages[0] if stages else "waiting")
            bar.update(finished - bar.n)
            if finished == len(names):
                return [home.outbox / jobs[name]["output_rel"] for name in names]
            time.sleep(0.5)
    raise OutputInvalid(f"nothing came out within {PATIENCE_S} s; {log} says what the daemon did")


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    """Ask the daemon to end, and end it if it does not; its exit code then tells which."""
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _jobs(home: Home) -> list[dict[str, Any]]:
    """Return the newest jobs; none while the daemon has not made the database yet."""
    command = _command(home, "jobs", "--limit", str(SEEN), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    found: list[dict[str, Any]] = json.loads(done.stdout)["jobs"] if done.returncode == 0 else []
    return found


def _draw(home: Home, before: Path, after: Path, folder: Path) -> str:
    """Draw mel, f0 and loudness of both sides beside the daemon's log; returns its place, or why there is none."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture: matplotlib is not installed (pip install matplotlib)"
    from rvc_batch.api import analyse
    from rvc_batch.plots.conversion import Side, draw_conversion

    picture = home.root / f"{after.stem}.png"
    first, second = analyse([before, after], home=home.root)
    draw_conversion(Side("in", before, first.pitch), Side("out", after, second.pitch), first.borders_s, picture)
    return str(folder / picture.name)


def _command(home: Home, *words: str) -> list[str]:
    return [sys.executable, "-m", "rvc_batch", "--home", str(home.root), *words]


def _environment() -> dict[str, str]:
    """Return this environment without settings that are meant for another home."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RVC_BATCH_")}

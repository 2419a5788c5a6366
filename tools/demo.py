#!/usr/bin/env python3
"""The main job, end to end, in a folder of its own: `make demo` runs this.

Makes what models it needs, starts the daemon, drops two recordings into the inbox, waits, shows `status`, draws a
picture, and stops the daemon. Until trained demo voices exist the models are synthetic: every layer, file format and
step is the real one, but what comes out is not speech.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

CHECKOUT = Path(__file__).resolve().parents[1]
HOME = CHECKOUT / "demo"
RECORDINGS = sorted((CHECKOUT / "tools" / "demo").glob("*.flac"))
VOICE = "synthetic"
PATIENCE_S = 300
NETWORKS = "v2_40k_f0_feat48"  # a v2 voice as narrow as the synthetic content network


def main() -> None:
    """Run the demonstration."""
    say("1/5 models: synthetic networks of a fixed seed, so what you will hear is NOT speech")
    make_models()
    say(f"2/5 daemon: rvc-batch --home {HOME.relative_to(CHECKOUT)} run")
    log = (HOME / "daemon.log").open("w")
    daemon = subprocess.Popen([*rvc_batch(), "run"], stdout=log, stderr=subprocess.STDOUT, cwd=CHECKOUT)
    try:
        say(f"3/5 dropping {len(RECORDINGS)} recordings into inbox/{VOICE}/")
        known = {job["id"] for job in list_jobs()}
        names = [drop(recording) for recording in RECORDINGS]
        results = wait_for(names, known, daemon)
        say("4/5 status")
        subprocess.run([*rvc_batch(), "status"], check=False, cwd=CHECKOUT)
        say("5/5 picture")
        for name, result in zip(names, results, strict=True):
            say(f"      {name} -> {result.relative_to(CHECKOUT)}")
        picture = draw(RECORDINGS[0], results[0])
        say(f"      {picture.relative_to(CHECKOUT)}")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        log.close()
    if daemon.returncode != 0:
        sys.exit(f"the daemon ended with {daemon.returncode}, see {log.name}")
    say("done: the daemon has stopped, everything it made is in demo/")


def make_models() -> None:
    """Write the synthetic networks into demo/models and demo/voices."""
    made = HOME / "made"
    for folder in ("inbox", "outbox", "models", f"voices/{VOICE}"):
        (HOME / folder).mkdir(parents=True, exist_ok=True)
    maker = CHECKOUT / "tests" / "golden" / "make_checkpoints.py"
    wanted = ["hubert_base.pt", "rmvpe.pt", f"voices/{NETWORKS}.pth", "index/*_v2.index"]
    command = [sys.executable, str(maker), str(made), "--seed", "1", "--size", "tiny", "--only", *wanted]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(made / "hubert_base.pt", HOME / "models")
    shutil.copy(made / "rmvpe.pt", HOME / "models")
    shutil.copy(made / "voices" / f"{NETWORKS}.pth", HOME / "voices" / VOICE / f"{VOICE}.pth")
    (index,) = (made / "index").glob("*_v2.index")
    shutil.copy(index, HOME / "voices" / VOICE / f"{VOICE}.index")


def drop(recording: Path) -> str:
    """Copy a recording under a hidden name and rename it: the watcher never sees half a file."""
    folder = HOME / "inbox" / VOICE
    folder.mkdir(exist_ok=True)
    hidden = folder / f".{recording.name}"
    shutil.copy(recording, hidden)
    hidden.rename(folder / recording.name)
    return recording.name


def wait_for(names: list[str], known: set[int], daemon: subprocess.Popen[bytes]) -> list[Path]:
    """Return the file each name became, when all are finished; any failure ends the demonstration."""
    deadline = time.monotonic() + PATIENCE_S
    with tqdm(total=len(names), unit="file", bar_format="      {desc} {n}/{total} files, {elapsed}") as bar:
        while time.monotonic() < deadline:
            if daemon.poll() is not None:
                sys.exit(f"the daemon ended early with {daemon.returncode}, see demo/daemon.log")
            jobs = {Path(job["source_name"]).name: job for job in list_jobs() if job["id"] not in known}
            for job in jobs.values():
                if job["state"] in ("failed", "cancelled"):
                    sys.exit(f"job {job['id']} {job['state']}: {job['error']}")
            finished = [job for job in jobs.values() if job["state"] == "done"]
            bar.set_description_str(
                next((str(j["stage"]) for j in jobs.values() if j["state"] == "running"), "waiting")
            )
            bar.update(len(finished) - bar.n)
            if len(finished) == len(names):
                return [HOME / "outbox" / jobs[name]["output_rel"] for name in names]
            time.sleep(0.5)
    sys.exit(f"nothing came out within {PATIENCE_S} s, see demo/daemon.log")


def list_jobs() -> list[dict[str, Any]]:
    """Return the newest jobs; none while the daemon has not made the database yet."""
    command = [*rvc_batch(), "jobs", "--limit", "50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    return json.loads(done.stdout)["jobs"] if done.returncode == 0 else []


def draw(before: Path, after: Path) -> Path:
    """Draw mel, f0, loudness and segment borders of input and output, as `rvc-batch job ID --plot` does."""
    from rvc_batch.api import analyse
    from rvc_batch.plots.conversion import Side, draw_conversion

    picture = HOME / "conversion.png"
    first, second = analyse([before, after], home=HOME)
    draw_conversion(Side("in", before, first.pitch), Side("out", after, second.pitch), first.borders_s, picture)
    return picture


def rvc_batch() -> list[str]:
    """Return the command line of the product in the demonstration's home."""
    return [sys.executable, "-m", "rvc_batch", "--home", str(HOME)]


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    os.environ.pop("RVC_BATCH_HOME", None)
    main()

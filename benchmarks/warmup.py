#!/usr/bin/env python3
"""Does the first job after a start of the worker cost more than the tenth?

    python benchmarks/warmup.py [--starts 3] [--jobs 10] [--seconds 5] [--output FILE]

Each start is a new process that opens the renderer as the worker does, warms it up, and renders the same file again and
again with index and default settings; networks are the synthetic ones of published size. One start without the warm-up
shows what it is for. The share of the machine that other processes used stands beside the numbers: on a busy machine
the ratio of processor seconds is the one to read.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.measuring import Sample, Side, machine_facts, serve, spread, write_result  # noqa: E402
from benchmarks.memory import CHECKPOINTS, SPEECH, VOICES, make_networks  # noqa: E402

WIDTHS = {"tiny": 48, "full": 768}  # of the content features
VECTORS = 5_000  # in the index: a small one
BAR = 1.1  # the first job may cost this much of the tenth


def main() -> None:
    """Start, render, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=VOICES, default="full")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "warmup.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve_renderer(options.child, is_cold=options.cold)
        return
    make_networks(options.networks)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        folder = Path(name)
        make_home(folder, options.networks, options.seconds)
        one_start(folder, jobs=1)  # imports the networks into the cache of the home, once for all starts
        cold = one_start(folder, jobs=2, is_cold=True)
        starts = [one_start(folder, jobs=options.jobs) for _ in range(options.starts)]
    first_and_last = {
        "wall": [jobs[0].wall_seconds / jobs[-1].wall_seconds for _, jobs in starts],
        "cpu": [jobs[0].cpu_seconds / jobs[-1].cpu_seconds for _, jobs in starts],
    }
    ratios = {kind: spread(values) for kind, values in first_and_last.items()}
    result = {
        "networks": f"{options.networks}, synthetic",
        "seconds": options.seconds,
        "machine": machine_facts("mlx", "numpy", "faiss-cpu"),
        "first_to_last": ratios,
        "is_within_bar": ratios["cpu"]["median"] <= BAR,
        "starts": [start_row(*start) for start in starts],
        "without_warm_up": start_row(*cold),
    }
    write_result(options.output, result)
    print(f"first to last job: wall {ratios['wall']['median']}, processor {ratios['cpu']['median']}")


def start_row(facts: dict[str, Any], jobs: list[Sample]) -> dict[str, Any]:
    """Return the numbers of one start."""
    return facts | {
        "wall_seconds": [round(job.wall_seconds, 3) for job in jobs],
        "cpu_seconds": [round(job.cpu_seconds, 3) for job in jobs],
        "used_by_others": round(statistics.median(job.other_share for job in jobs), 3),
        "first_job_stages": {k: round(v, 3) for k, v in jobs[0].facts["stage_seconds"].items()},
        "last_job_stages": {k: round(v, 3) for k, v in jobs[-1].facts["stage_seconds"].items()},
    }


def one_start(folder: Path, *, jobs: int, is_cold: bool = False) -> tuple[dict[str, Any], list[Sample]]:
    """Return what a new process says of its start, and its jobs one after the other."""
    with Side([__file__, "--child", str(folder), *(["--cold"] if is_cold else [])]) as side:
        return side.facts, [side.ask({}) for _ in range(jobs)]


def serve_renderer(folder: Path, *, is_cold: bool) -> None:
    """Open the renderer as the worker does and render whenever asked."""
    from rvc_batch.config import Settings
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.home import Home
    from rvc_batch.jobs.renderer import open_engine

    began = time.perf_counter()
    renderer = open_engine(Home(folder / "home"), Settings())
    opened = time.perf_counter()
    if not is_cold:
        renderer.warm_up()
    facts = {
        "device": renderer.device,
        "open_seconds": round(opened - began, 3),
        "warm_up_seconds": round(time.perf_counter() - opened, 3),
    }

    def prepare(_: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            report = renderer.render(
                folder / "job" / "speech.flac",
                folder / "job" / "out.wav",
                voice="anna",
                settings=ConversionSettings(),
                progress=lambda _: None,
            )
            return {"stage_seconds": report.stage_seconds}

        return work

    serve(facts, prepare)


def make_home(folder: Path, networks: str, seconds: float) -> None:
    """Make a home with one voice and its index, and a file to render."""
    import faiss

    home = folder / "home"
    for name in ("models", "voices", "state"):
        (home / name).mkdir(parents=True)
    for network in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(CHECKPOINTS / networks / network, home / "models" / network)
    shutil.copy(CHECKPOINTS / networks / "voices" / f"{VOICES[networks]}.pth", home / "voices" / "anna.pth")
    vectors = np.random.default_rng(0).standard_normal((VECTORS, WIDTHS[networks])).astype(np.float32)
    index = faiss.index_factory(WIDTHS[networks], "IVF64,Flat")
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(home / "voices" / "anna.index"))
    (folder / "job").mkdir()
    wave, rate = sf.read(SPEECH, dtype="float32")
    sf.write(folder / "job" / "speech.flac", wave[: round(seconds * rate)], rate)


if __name__ == "__main__":
    main()

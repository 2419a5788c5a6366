#!/usr/bin/env python3
"""A whole conversion, decode to encode: rvc-batch on MLX against torch doing the original program's work.

    python benchmarks/pipeline.py [--rows 5 30 60 180 300 batch] [--runs 5] [--again] [--output FILE]

Networks have the published sizes (synthetic weights, 40 kHz v2 voice), the input is real speech. The torch side is the
original's amount of work: its own seams, flow and generator over the second of context on both sides of a segment that
is thrown away afterwards, in one piece. Both sides run in processes of their own with the same number of threads, in
turn. `batch` is ten files of 30 s. Each row is written when it is done; a row that is there is not run again unless
--again is given. The first conversion of each process is the cold one. Accuracy: both backends with the same seams.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.measuring import Sample, Side, alternate, compare, machine_facts, serve, spread, write_result  # noqa: E402
from benchmarks.memory import CHECKPOINTS, make_networks, write_speech  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "pipeline.json"
VOICE = "v2_40k_f0"
BATCH_FILES, BATCH_SECONDS = 10, 30
THREADS = os.cpu_count() or 1
BASELINE = "torch"
LONG_SECONDS = 100  # rows from here on run once: a run takes minutes


def main() -> None:
    """Run the rows that are missing and write each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["5", "30", "60", "180", "300", "batch"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="run rows that are there already")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--side", choices=("mlx", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        answer(options.side)
        return
    make_networks("full")
    result: dict[str, Any] = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    missing = [name for name in options.rows if options.again or name not in result.get("rows", {})]
    if not missing:
        return
    # on the side of mlx the product chooses the threads of its BLAS
    variables = {"mlx": {}, BASELINE: {"OMP_NUM_THREADS": str(THREADS)}}
    sides = {name: Side([__file__, "--side", name], environment=variables[name]) for name in variables}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        result |= {"voice": VOICE, "threads": THREADS, "machine": machine_facts("mlx", "torch", "numpy")}
        result["sides"] = {name: side.facts for name, side in sides.items()}
        result["cold"] = cold_start(sides, Path(folder))
        result["accuracy"] = accuracy(sides, Path(folder))
        for name in tqdm(missing, unit="row"):
            row = run_row(sides, Path(folder), name, options.runs)
            result.setdefault("rows", {})[name] = row
            write_result(options.output, result)
            tqdm.write(f"{name}: {row['mlx']['ratio']} x {BASELINE}, {row['mlx']['realtime_factor']} x real time")
    for side in sides.values():
        side.close()


def run_row(sides: dict[str, Side], folder: Path, name: str, runs: int) -> dict[str, Any]:
    """Convert the files of one row on both sides in turn and compare."""
    count, seconds = (BATCH_FILES, BATCH_SECONDS) if name == "batch" else (1, float(name))
    sources = [speech(folder, seconds, first=i * 7.0) for i in range(count)]
    request = {"sources": [str(p) for p in sources], "folder": str(folder), "seams": "own"}
    is_long = count * seconds >= LONG_SECONDS
    samples = alternate(sides, request, runs=1 if is_long else runs, warm_ups=0)
    row = compare(samples, baseline=BASELINE)
    for side, taken in samples.items():
        row[side]["realtime_factor"] = round(count * seconds / row[side]["wall_seconds"]["median"], 3)
        row[side]["stage_seconds"] = stage_medians(taken)
    return {"files": count, "seconds_each": seconds} | row


def stage_medians(samples: list[Sample]) -> dict[str, float]:
    """Return the median seconds of every stage."""
    stages = dict.fromkeys(stage for sample in samples for stage in sample.facts["stage_seconds"])
    return {stage: spread([s.facts["stage_seconds"].get(stage, 0.0) for s in samples])["median"] for stage in stages}


def cold_start(sides: dict[str, Side], folder: Path) -> dict[str, Any]:
    """Convert 5 s as the first and as the second thing each process does."""
    request = {"sources": [str(speech(folder, 5))], "folder": str(folder), "seams": "own"}
    return {
        name: {
            "first_seconds": round(side.ask(request).wall_seconds, 3),
            "second_seconds": round(side.ask(request).wall_seconds, 3),
        }
        for name, side in sides.items()
    }


def accuracy(sides: dict[str, Side], folder: Path) -> dict[str, float]:
    """Convert 5 s on both sides with the same seams and compare the samples."""
    request = {"sources": [str(speech(folder, 5))], "folder": str(folder), "seams": "exact", "keep": True}
    ours, theirs = (sf.read(sides[name].ask(request).facts["target"])[0] for name in ("mlx", BASELINE))
    error = ours - theirs
    return {
        "seconds": 5,
        "largest_error": float(np.abs(error).max()),
        "relative_l2": float(np.linalg.norm(error) / np.linalg.norm(theirs)),
    }


def speech(folder: Path, seconds: float, first: float = 0.0) -> Path:
    """Return a file of real speech of a length, another piece of it for every `first`."""
    path = folder / f"speech-{seconds:g}-{first:g}.flac"
    if not path.exists():
        write_speech(path, seconds, first)
    return path


def answer(name: str) -> None:
    """Be one side: load the networks, convert what is asked for."""
    from rvc_batch.engine import conversion
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.engine.tiling import Tile
    from rvc_batch.importers.store import ModelStore

    if name == BASELINE:
        import torch

        torch.set_num_threads(THREADS)
    files = CHECKPOINTS / "full"
    store = ModelStore(models=files, voices=files / "voices", cache=ROOT / "build" / "model-cache")
    voice = store.voice_file(files / "voices" / f"{VOICE}.pth")
    started = time.perf_counter()
    backend = open_backend(name, hubert=store.hubert(), rmvpe=store.rmvpe())
    backend.load_voice(voice)
    loaded = time.perf_counter() - started
    our_tiles = conversion.synthesis_tiles

    def whole_segment(start: int, stop: int, total: int, *_: object) -> list[Tile]:
        """Synthesise the context too, in one piece, as the original does."""
        return [Tile(0, total, start, stop)]

    def prepare(request: dict[str, Any]) -> Any:
        is_upstream = name == BASELINE and request["seams"] == "own"
        conversion.synthesis_tiles = whole_segment if is_upstream else our_tiles  # type: ignore[assignment]
        output_format = "wav32f" if request.get("keep") else "wav"
        settings = ConversionSettings(
            seams="upstream" if is_upstream else "exact", output_format=output_format, index_rate=0.0
        )
        folder = Path(request["folder"])
        converter = Converter(backend, scratch=folder)
        target = folder / f"{name}.wav"

        def work() -> dict[str, Any]:
            stages: dict[str, float] = {}
            for source in request["sources"]:
                report = converter.convert(Path(source), target, voice=voice, settings=settings)
                for stage, seconds in report.stage_seconds.items():
                    stages[stage] = stages.get(stage, 0.0) + seconds
            return {"stage_seconds": stages, "target": str(target)}

        return work

    serve({"device": backend.device, "load_seconds": round(loaded, 3)}, prepare)


if __name__ == "__main__":
    main()

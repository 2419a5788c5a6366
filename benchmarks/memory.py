#!/usr/bin/env python3
"""Peak memory and speed of one conversion, by length of the file: does memory stay flat, and is a limit kept?

    python benchmarks/memory.py [--networks tiny|full|none] [--minutes 2 10 60 600] [--limit none "2 GB" …]
                                [--backend mlx|torch] [--again] [--output FILE]

Speech is the 100 s of tests/golden/inputs repeated to length; networks are the synthetic ones of tests/golden (full has
the published sizes). With `none` a stand-in of numpy takes their place, so that what lies around them can be measured
at any length. Every row runs in a process of its own, so that its peak is its own. The JSON is written after each row,
and a row that is in it already is not run again unless --again is given: rows can be run one by one. A row keeps the
resident size at up to 40 segment borders, so that a leak shows.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

SPEECH = ROOT / "tests" / "golden" / "inputs" / "long_100s.flac"
VOICES = {"tiny": "v2_40k_f0_feat48", "full": "v2_40k_f0"}
FULL_FILES = ("contentvec*", "hubert_base.pt", "rmvpe.pt", "voices/v2_40k_f0.pth", "index/*")  # as tests/conftest.py
NO_NETWORKS = "none"
CHECKPOINTS = ROOT / "build" / "golden-checkpoints"


def main() -> None:
    """Run the rows that are missing and write each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=[*VOICES, NO_NETWORKS], default="tiny")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10, 60])
    parser.add_argument("--limit", nargs="+", default=["none"], help='memory limits such as "2 GB"')
    parser.add_argument("--backend", choices=("mlx", "torch"), default="mlx")
    parser.add_argument("--again", action="store_true", help="run rows that are there already")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        convert_one(options)
        return
    name = f"memory-{options.networks}-{options.backend}.json"
    output: Path = options.output or ROOT / "benchmarks" / "results" / name
    make_networks(options.networks)
    rows: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))["rows"] if output.is_file() else []
    wanted = [(minutes, limit) for minutes in options.minutes for limit in options.limit]
    for minutes, limit in tqdm(wanted, unit="row"):
        key = (minutes, limit)
        if not options.again and any((row["minutes"], row["limit"]) == key for row in rows):
            continue
        row = {"minutes": minutes, "limit": limit} | run_row(options, minutes, limit)
        rows = sorted([r for r in rows if (r["minutes"], r["limit"]) != key] + [row], key=row_order)
        output.write_text(json.dumps(table(options, rows), indent=2) + "\n", encoding="utf-8")
        tqdm.write(json.dumps(row))


def row_order(row: dict[str, Any]) -> tuple[str, float]:
    """Sort rows by limit, then length."""
    return str(row["limit"]), float(row["minutes"])


def run_row(options: argparse.Namespace, minutes: float, limit: str) -> dict[str, Any]:
    """Convert speech of a length in a process of its own."""
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        source = Path(folder) / "speech.flac"
        write_speech(source, minutes * 60)
        command = [sys.executable, __file__, "--child", str(source), "--networks", options.networks]
        command += ["--backend", options.backend, "--limit", limit]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def table(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is written: the rows, and each peak relative to the shortest file's without a limit."""
    free = [row for row in rows if row["limit"] == "none"]
    return {
        "networks": options.networks,
        "backend": options.backend,
        "machine": {"system": platform.platform(), "processor": platform.processor() or platform.machine()},
        "rows": rows,
        "peak_rss_relative_to_shortest": {
            f"{row['minutes']:g} min": round(row["peak_rss_mb"] / free[0]["peak_rss_mb"], 3) for row in free
        },
    }


def convert_one(options: argparse.Namespace) -> None:
    """Convert one file and print what it took."""
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter, Progress
    from rvc_batch.engine.memory import parse_size
    from rvc_batch.engine.resident_size import resident_size
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.importers.store import ModelStore

    if options.networks == NO_NETWORKS:
        backend, voice = stand_in()
    else:
        folder = CHECKPOINTS / options.networks
        store = ModelStore(models=folder, voices=folder / "voices", cache=ROOT / "build" / "model-cache")
        voice = store.voice_file(folder / "voices" / f"{VOICES[options.networks]}.pth")
        backend = open_backend(options.backend, hubert=store.hubert(), rmvpe=store.rmvpe())
    (limit,) = options.limit
    converter = Converter(
        backend, scratch=options.child.parent, memory_limit=None if limit == "none" else parse_size(limit)
    )
    settings = ConversionSettings(index_rate=0.0)
    target = options.child.with_name("out.wav")
    samples: list[int] = []
    scratch_peak = 0

    def look(progress: Progress) -> None:
        nonlocal scratch_peak
        samples.append(round(resident_size() / 1e6))
        files = [p for p in options.child.parent.rglob("*") if p.is_file() and p != options.child]
        scratch_peak = max(scratch_peak, sum(p.stat().st_size for p in files))

    report = converter.convert(options.child, target, voice=voice, settings=settings, progress=look)
    scratch_peak += target.stat().st_size
    target.unlink()
    row: dict[str, Any] = {
        "peak_rss_mb": round(report.peak_rss_bytes / 1e6),
        "peak_device_mb": round(report.peak_device_bytes / 1e6),
        "seconds": round(report.wall_seconds, 1),
        "realtime_factor": round(report.realtime_factor, 2),
        "segments": report.segments,
        "length_exact": report.samples_out == round(report.samples_in * report.rate_out / report.rate_in),
        "scratch_and_output_mb": round(scratch_peak / 1e6),
        "resident_mb_at_borders": samples[:: -(-len(samples) // 40)],
        "stage_seconds": {k: round(v, 2) for k, v in report.stage_seconds.items()},
    }
    print(json.dumps(row))


def stand_in() -> tuple[Any, Any]:
    """Return a backend of numpy with the true frame arithmetic and a voice for it."""
    from tests.engine_fakes import NumpyBackend, fake_voice

    backend = NumpyBackend()
    backend.seen = deque(maxlen=1)  # type: ignore[assignment]  # it keeps what it was shown, for tests
    return backend, fake_voice()


def write_speech(path: Path, seconds: float, first_second: float = 0.0) -> None:
    """Write the golden speech from a place on, repeated to a length."""
    wave, rate = sf.read(SPEECH, dtype="float32")
    wave = np.roll(wave, -round(first_second * rate))
    left = round(seconds * rate)
    with sf.SoundFile(path, "w", rate, 1, "PCM_16", format="FLAC") as out:
        while left:
            piece = wave[: min(left, wave.size)]
            out.write(np.ascontiguousarray(piece))
            left -= piece.size


def make_networks(size: str) -> None:
    """Generate the synthetic networks if they are not there: what the tests generate, in the folder they share."""
    if size == NO_NETWORKS:
        (ROOT / "build").mkdir(exist_ok=True)
        return
    folder = CHECKPOINTS / size
    if folder.is_dir():
        return
    maker = ROOT / "tests" / "golden" / "make_checkpoints.py"
    only = ["--only", *FULL_FILES] if size == "full" else []
    subprocess.run([sys.executable, maker, folder, "--seed", "1", "--size", size, *only], check=True)


if __name__ == "__main__":
    main()

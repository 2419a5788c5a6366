#!/usr/bin/env python3
"""Peak memory and speed of one conversion, by length of the file: does memory stay flat?

    python benchmarks/memory.py [--networks tiny|full] [--minutes 2 10 60] [--backend mlx|torch] [--output FILE]

Speech is the 100 s of tests/golden/inputs repeated to length; networks are the synthetic ones of tests/golden (full has
the published sizes). Every length runs in a process of its own, so that its peak is its own. Results are JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

SPEECH = ROOT / "tests" / "golden" / "inputs" / "long_100s.flac"
VOICES = {"tiny": "v2_40k_f0_feat48", "full": "v2_40k_f0"}
CHECKPOINTS = ROOT / "build" / "golden-checkpoints"


def main() -> None:
    """Run all lengths and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=VOICES, default="tiny")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10, 60])
    parser.add_argument("--backend", choices=("mlx", "torch"), default="mlx")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        convert_one(options)
        return
    make_networks(options.networks)
    rows = []
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        for minutes in tqdm(options.minutes, unit="length"):
            source = Path(folder) / "speech.flac"
            write_speech(source, minutes * 60)
            command = [sys.executable, __file__, "--child", str(source), "--networks", options.networks]
            command += ["--backend", options.backend]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            rows.append({"minutes": minutes} | json.loads(done.stdout.splitlines()[-1]))
            tqdm.write(json.dumps(rows[-1]))
    shortest = rows[0]["peak_rss_mb"]
    result = {
        "networks": options.networks,
        "backend": options.backend,
        "machine": {"system": platform.platform(), "processor": platform.processor() or platform.machine()},
        "rows": rows,
        "peak_rss_relative_to_first": [round(r["peak_rss_mb"] / shortest, 3) for r in rows],
    }
    name = f"memory-{options.networks}-{options.backend}.json"
    output = options.output or ROOT / "benchmarks" / "results" / name
    output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def convert_one(options: argparse.Namespace) -> None:
    """Convert one file and print what it took."""
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.importers.store import ModelStore

    folder = CHECKPOINTS / options.networks
    store = ModelStore(models=folder, voices=folder / "voices", cache=ROOT / "build" / "model-cache")
    voice = store.voice_file(folder / "voices" / f"{VOICES[options.networks]}.pth")
    backend = open_backend(options.backend, hubert=store.hubert(), rmvpe=store.rmvpe())
    converter = Converter(backend, scratch=options.child.parent)
    settings = ConversionSettings(index_rate=0.0)
    target = options.child.with_name("out.wav")
    report = converter.convert(options.child, target, voice=voice, settings=settings)
    target.unlink()
    row: dict[str, Any] = {
        "peak_rss_mb": round(report.peak_rss_bytes / 1e6),
        "peak_device_mb": round(report.peak_device_bytes / 1e6),
        "seconds": round(report.wall_seconds, 1),
        "realtime_factor": round(report.realtime_factor, 2),
        "segments": report.segments,
        "length_exact": report.samples_out == round(report.samples_in * report.rate_out / report.rate_in),
        "stage_seconds": {k: round(v, 2) for k, v in report.stage_seconds.items()},
    }
    print(json.dumps(row))


def write_speech(path: Path, seconds: float) -> None:
    """Write the golden speech repeated to a length."""
    wave, rate = sf.read(SPEECH, dtype="float32")
    left = round(seconds * rate)
    with sf.SoundFile(path, "w", rate, 1, "PCM_16", format="FLAC") as out:
        while left:
            piece = wave[: min(left, wave.size)]
            out.write(np.ascontiguousarray(piece))
            left -= piece.size


def make_networks(size: str) -> None:
    """Generate the synthetic networks if they are not there."""
    folder = CHECKPOINTS / size
    if folder.is_dir():
        return
    maker = ROOT / "tests" / "golden" / "make_checkpoints.py"
    wanted = ["hubert_base.pt", "rmvpe.pt", f"voices/{VOICES[size]}.pth"]
    subprocess.run([sys.executable, maker, folder, "--seed", "1", "--size", size, "--only", *wanted], check=True)


if __name__ == "__main__":
    main()

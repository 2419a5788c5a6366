#!/usr/bin/env python3
"""One recording with five voices: a matrix job, which asks the networks once, against five separate jobs.

    python benchmarks/matrix.py [--networks full|tiny] [--seconds 30] [--pairs 3] [--backend mlx|torch] [--output FILE]

Everything is what the worker does to a job, from decode to encode, in one process with warmed networks. "Separate" has
no feature cache, "matrix" begins with an empty one each time. The two are run in turn; the files must be equal to the
byte. The voices have the published sizes and synthetic weights, and differ.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

import soundfile as sf  # noqa: E402
import torch  # noqa: E402

from benchmarks.measuring import machine_facts, spread, write_result  # noqa: E402
from benchmarks.memory import CHECKPOINTS, VOICES, make_networks, write_speech  # noqa: E402
from rvc_batch.engine.backend import Backend, open_backend  # noqa: E402
from rvc_batch.engine.blas import prepare_process  # noqa: E402
from rvc_batch.engine.converter import Converter  # noqa: E402
from rvc_batch.engine.feature_cache import FeatureCache  # noqa: E402
from rvc_batch.engine.settings import ConversionSettings  # noqa: E402
from rvc_batch.engine.voice import Voice  # noqa: E402
from rvc_batch.importers.store import ModelStore  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "matrix.json"
N_VOICES = 5
CACHE_BYTES = 2_000_000_000


def main() -> None:
    """Run the pairs and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=VOICES, default="full")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--backend", choices=("mlx", "torch"), default="mlx")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    prepare_process()
    make_networks(options.networks)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        result = measure(options, Path(folder))
    write_result(options.output, result)
    print(f"{result['ratio']} x as fast as separate jobs, equal audio: {result['identical_audio']}")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return wall seconds of both ways, their ratio, and whether all files are equal."""
    files = CHECKPOINTS / options.networks
    store = ModelStore(models=files, voices=make_voices(files, options.networks, folder), cache=folder / "cache")
    voices = [store.voice(name) for name in store.voice_names()]
    backend = open_backend(options.backend, hubert=store.hubert(), rmvpe=store.rmvpe())
    source = folder / "speech.flac"
    write_speech(source, options.seconds)
    seconds: dict[str, list[float]] = {"separate": [], "matrix": []}
    outputs: list[list[bytes]] = []
    stages: dict[str, dict[str, float]] = {}
    reused: list[dict[str, int]] = []
    for _ in tqdm(range(options.pairs), unit="pair"):
        for way in seconds:
            taken, audio, stages[way], reused = convert_all(backend, voices, source, shared=way == "matrix")
            seconds[way].append(taken)
            outputs.append(audio)
    return {
        "networks": options.networks,
        "backend": options.backend,
        "machine": machine_facts("mlx", "torch", "numpy"),
        "seconds_of_audio": options.seconds,
        "voices": len(voices),
        "wall_seconds": {way: spread(taken) for way, taken in seconds.items()},
        "stage_seconds": {way: {name: round(s, 2) for name, s in each.items()} for way, each in stages.items()},
        "reused_by_each_voice": reused,
        "ratio": round(
            spread([a / b for a, b in zip(seconds["separate"], seconds["matrix"], strict=True)])["median"], 3
        ),
        "identical_audio": all(audio == outputs[0] for audio in outputs),
        "different_renderings": len({sf.read(io.BytesIO(audio))[0].tobytes() for audio in outputs[0]}),
    }


def convert_all(
    backend: Backend, voices: list[Voice], source: Path, *, shared: bool
) -> tuple[float, list[bytes], dict[str, float], list[dict[str, int]]]:
    """Convert the source with every voice; return wall seconds, the files, seconds by stage, and what was reused."""
    folder = source.with_name("features")
    shutil.rmtree(folder, ignore_errors=True)
    converter = Converter(
        backend, scratch=source.with_name("scratch"), features=FeatureCache(folder, CACHE_BYTES) if shared else None
    )
    stages: dict[str, float] = {}
    audio, reused, started = [], [], time.perf_counter()
    for voice in voices:
        target = source.with_name(f"{voice.name}.wav")
        report = converter.convert(source, target, voice=voice, settings=ConversionSettings(index_rate=0.0))
        for stage, seconds in report.stage_seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
        reused.append(report.reused)
    taken = time.perf_counter() - started
    audio = [source.with_name(f"{voice.name}.wav").read_bytes() for voice in voices]
    return taken, audio, stages, reused


def make_voices(files: Path, networks: str, folder: Path) -> Path:
    """Write five voices that differ in what their speaker adds, and return their folder."""
    voices = folder / "voices"
    voices.mkdir()
    stored = torch.load(files / "voices" / f"{VOICES[networks]}.pth", weights_only=True)
    speakers = stored["weight"]["emb_g.weight"].clone()
    for number in range(N_VOICES):
        stored["weight"]["emb_g.weight"] = speakers * (1 + number / N_VOICES)
        torch.save(stored, voices / f"voice {number}.pth")
    return voices


if __name__ == "__main__":
    main()

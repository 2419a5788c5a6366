#!/usr/bin/env python3
"""What each stage of the networks needs per frame: the numbers behind `engine/memory.py`.

    python benchmarks/memory_model.py [--networks tiny full] [--backend mlx|torch] [--output FILE]

Every stage runs at two lengths; the peak of the resident size above what was there before is a line through both: bytes
per frame, and in units of the widest activation, which `engine/memory.py` knows from the network's config. Networks are
the synthetic ones of tests/golden.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.memory import CHECKPOINTS, VOICES, make_networks  # noqa: E402
from rvc_batch.engine.backend import Backend, open_backend  # noqa: E402
from rvc_batch.engine.dialect import RVC_2023  # noqa: E402
from rvc_batch.engine.memory import CACHE_RANGE, Needs  # noqa: E402
from rvc_batch.engine.requests import silent_inputs  # noqa: E402
from rvc_batch.engine.resident_size import ResidentPeak, resident_size  # noqa: E402
from rvc_batch.importers.store import ModelStore  # noqa: E402

LENGTHS = {  # frames of 10 ms
    "tiny": {"content": (1_000, 4_000), "pitch": (1_024, 4_096), "prior": (1_000, 4_000), "decode": (256, 1_024)},
    "full": {"content": (1_000, 4_000), "pitch": (512, 2_048), "prior": (1_000, 4_000), "decode": (64, 256)},
}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=VOICES, nargs="+", default=list(VOICES))
    parser.add_argument("--backend", choices=("mlx", "torch"), default="mlx")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = [row for size in options.networks for row in measure(size, options.backend)]
    output = options.output or ROOT / "benchmarks" / "results" / f"memory-model-{options.backend}.json"
    output.write_text(json.dumps({"backend": options.backend, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def measure(size: str, name: str) -> list[dict[str, Any]]:
    """Return one row per stage for networks of a size."""
    make_networks(size)
    folder = CHECKPOINTS / size
    store = ModelStore(models=folder, voices=folder / "voices", cache=ROOT / "build" / "model-cache")
    voice = store.voice_file(folder / "voices" / f"{VOICES[size]}.pth")
    before = resident_size()
    backend = open_backend(name, hubert=store.hubert(), rmvpe=store.rmvpe())
    backend.load_voice(voice)
    backend.warm_up(voice)
    backend.limit_memory(cache_bytes=CACHE_RANGE[0], voices=1)  # the cache has a budget of its own
    backend.release()
    rows = [{"networks": size, "stage": "loaded", "mb": round(resident_size() / 1e6), "before_mb": round(before / 1e6)}]
    configs = backend.content_config, backend.pitch_config, voice.config
    needs = Needs.of(backend.appetite, *configs, loaded=0, rules=RVC_2023)
    mel = np.zeros((8_192, backend.pitch_config.n_mels), np.float32)

    def decode(frames: int) -> None:
        x = silent_inputs(voice.config, frames)
        backend.decode(np.zeros((frames, voice.config.inter_channels), np.float32), x)

    layers = backend.content_config.n_layers
    stages: dict[str, Callable[[int], Any]] = {
        "content": lambda n: backend.content(np.zeros(n * 160, np.float32), layer=layers, project=False),
        "pitch": lambda n: backend.pitch_planes(mel[:n]),
        "prior": lambda n: backend.encode_prior(silent_inputs(voice.config, n)),
        "decode": decode,
    }
    for stage, run in stages.items():
        lengths = LENGTHS[size][stage]
        peaks = [above(backend, run, n) for n in lengths]
        slope = (peaks[1][0] - peaks[0][0]) / (lengths[1] - lengths[0])
        row = {
            "networks": size,
            "stage": stage,
            "frames": lengths,
            "resident_mb": [round(p / 1e6, 1) for p, _ in peaks],
            "device_mb": [round(d / 1e6, 1) for _, d in peaks],
            "bytes_per_frame": round(slope),
            "widest_activations": round(slope / getattr(needs.widths, stage), 1),
            "modelled_mb": [round(modelled(needs, stage, n) / 1e6, 1) for n in lengths],
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def modelled(needs: Needs, stage: str, frames: int) -> int:
    """Return what `engine/memory.py` expects of a stage that is shown so many frames."""
    if stage == "pitch":
        return needs.pitch_tile(frames - needs.pitch_halo)
    if stage == "decode":
        return needs.tile(frames - needs.tile_halo)
    return needs.content(frames) if stage == "content" else needs.prior(frames)


def above(backend: Backend, run: Callable[[int], Any], frames: int) -> tuple[int, int]:
    """Return the peak resident and device size of one call, above what was there before."""
    backend.release()
    backend.peak_memory()
    peak, before = ResidentPeak(), resident_size()
    run(frames)
    return peak.peak() - before, backend.peak_memory()


if __name__ == "__main__":
    main()

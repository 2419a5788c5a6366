#!/usr/bin/env python3
"""How much pitch in windows differs from one pass over the whole file.

    python benchmarks/pitch_windows.py [--minutes 10] [--backend torch|mlx] [--look-ahead 0 64 128 256 512]

Speech is the 100 s of tests/golden/inputs repeated to length; the pitch network has the published size and synthetic
weights. Writes cents and voicing decisions per look-ahead to benchmarks/results/pitch-windows.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile as sf
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.memory import CHECKPOINTS, SPEECH, make_networks  # noqa: E402
from rvc_batch.engine.backend import open_backend  # noqa: E402
from rvc_batch.engine.dialect import MelPadding  # noqa: E402
from rvc_batch.engine.pitch import decode_salience  # noqa: E402
from rvc_batch.engine.pitch_windows import WINDOW_FRAMES, _planes, _recurrent, _rows  # noqa: E402
from rvc_batch.engine.tiling import pitch_halo  # noqa: E402
from rvc_batch.importers.store import ModelStore  # noqa: E402


class ArraySignal:
    """A signal in memory."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave = wave

    @property
    def samples(self) -> int:
        return self.wave.size

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.wave[start:stop]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backend", choices=("mlx", "torch"), default="torch")
    parser.add_argument("--networks", choices=("tiny", "full"), default="full")
    parser.add_argument("--look-ahead", type=int, nargs="+", default=[0, 32, 64, 128, 256, 512])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "pitch-windows.json")
    options = parser.parse_args()
    make_networks(options.networks)
    folder = CHECKPOINTS / options.networks
    store = ModelStore(models=folder, voices=folder / "voices", cache=ROOT / "build" / "model-cache")
    backend = open_backend(options.backend, hubert=store.hubert(), rmvpe=store.rmvpe())
    speech, rate = sf.read(SPEECH)
    samples = round(options.minutes * 60 * rate)
    signal = ArraySignal(np.resize(speech, samples))
    n_frames = 1 + samples // 160
    window = WINDOW_FRAMES
    tiled = list(tqdm(_planes(backend, signal, MelPadding.ZEROS, n_frames, window), desc="windows"))
    (whole,) = _planes(backend, signal, MelPadding.ZEROS, n_frames, 1 << 30)
    planes_error = float(np.abs(np.concatenate(tiled) - whole).max() / np.abs(whole).max())
    (reference,) = _recurrent(backend, iter([whole[:n_frames]]), 0, n_frames)
    expected = decode_salience(reference).f0
    rows = []
    for look_ahead in options.look_ahead:
        salience = np.concatenate(list(_recurrent(backend, _rows(iter(tiled), window), look_ahead, n_frames)))
        f0 = decode_salience(salience).f0
        is_both = (f0 > 0) & (expected > 0)
        cents = 1200 * np.abs(np.log2(f0[is_both] / expected[is_both]))
        rows.append(
            {
                "look_ahead_frames": look_ahead,
                "max_salience_error": float(np.abs(salience - reference).max()),
                "max_cents": round(float(cents.max()), 4),
                "frames_beyond_1_cent": int((cents > 1).sum()),
                "voicing_decisions_that_differ": int(((f0 > 0) != (expected > 0)).sum()),
            }
        )
        tqdm.write(json.dumps(rows[-1]))
    result = {
        "minutes": options.minutes,
        "frames": n_frames,
        "voiced_frames": int((expected > 0).sum()),
        "networks": options.networks,
        "backend": options.backend,
        "window_frames": window,
        "halo_frames": pitch_halo(backend.pitch_config).before,
        "windows": len(tiled),
        "planes_relative_error": planes_error,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

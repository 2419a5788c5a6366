#!/usr/bin/env python3
"""RMVPE in MLX against torch, from wave to salience, for 5 s to 5 min of speech.

    python benchmarks/rmvpe.py [--seconds 5 30 60 180 300] [--runs 7] [--device cpu] [--threads 2] [--blas auto|faiss]

Each backend runs in a process of its own; requests alternate. Both get the same wave and do what the product does with
it: one pass while it is short, tiles and windows beyond. The network has the published size and synthetic weights;
speech is that of tests/golden/inputs, repeated to length. The accuracy beside the times compares the two results.
`--network hubert` measures HuBERT the same way, in segments of at most 30 s as upstream cuts them, and `--network
generator` the generator of a 40 kHz v2 voice, in one piece: 3 s if no lengths are named.
Writes benchmarks/results/NETWORK-DEVICE[-BLAS].json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.measuring import Side, alternate, compare, machine_facts, serve, write_result  # noqa: E402
from benchmarks.memory import CHECKPOINTS, SPEECH, make_networks  # noqa: E402
from benchmarks.sides import be_ready, environment  # noqa: E402

SEGMENT_SAMPLES = 30 * 16000
CONTENT_LAYER = 12
VOICE = "v2_40k_f0"
LENGTHS = {"rmvpe": [5, 30, 60, 180, 300], "hubert": [5, 30, 60, 180, 300], "generator": [3]}


def main() -> None:
    """Measure all lengths and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=LENGTHS, default="rmvpe")
    parser.add_argument("--seconds", type=float, nargs="+", help="5 30 60 180 300; of the generator 3")
    parser.add_argument("--runs", type=int, default=7, help="of lengths up to 30 s; longer ones take fewer, at least 3")
    parser.add_argument("--device", default="cpu", help="what both sides must run on; anything else is refused")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blas", choices=("auto", "faiss"), default="auto")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", choices=("mlx", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        be_side(options)
        return
    make_networks("full")
    rows = []
    shared = [__file__, "--network", options.network, "--threads", str(options.threads), "--blas", options.blas]
    variables = environment(options.threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        Side([*shared, "--child", "torch"], environment=variables) as torch,
        Side([*shared, "--child", "mlx"], environment=variables) as mlx,
    ):
        facts = {"torch": torch.facts, "mlx": mlx.facts}
        for name, found in facts.items():
            if found["device"] != options.device:
                raise SystemExit(f"{name} runs on {found['device']}, not on {options.device}; name it with --device")
        for seconds in options.seconds or LENGTHS[options.network]:
            runs = max(3, round(options.runs * min(1.0, 30 / seconds)))
            samples = alternate({"torch": torch, "mlx": mlx}, {"seconds": seconds}, runs=runs)
            paths = {name: str(Path(folder) / f"{name}.npy") for name in facts}
            torch.ask({"seconds": seconds, "save": paths["torch"]})
            mlx.ask({"seconds": seconds, "save": paths["mlx"]})
            accuracy = difference(np.load(paths["mlx"]), np.load(paths["torch"]), options.network)
            rows.append({"seconds": seconds} | compare(samples, baseline="torch") | {"accuracy": accuracy})
            ours, theirs = rows[-1]["mlx"], rows[-1]["torch"]
            print(
                f"{options.network} {seconds:g} s: torch {theirs['wall_seconds']['median']:.3f} s, "
                f"mlx {ours['wall_seconds']['median']:.3f} s, ratio {ours['ratio']:.2f}, "
                f"of CPU seconds {ours['cpu_ratio']:.2f}, quiet {rows[-1]['is_quiet']}, {accuracy}",
                flush=True,
            )
    result = {
        "network": options.network,
        "what": "wall seconds from wave to result; ratio = torch / mlx",
        "machine": machine_facts("mlx", "torch", "numpy"),
        "sides": facts,
        "rows": rows,
    }
    suffix = "" if options.blas == "auto" else f"-{options.blas}-blas"
    name = f"{options.network}-{options.device}{suffix}.json".replace(" ", "_")
    write_result(options.output or ROOT / "benchmarks" / "results" / name, result)


def be_side(options: argparse.Namespace) -> None:
    """Load the networks of one backend and answer requests."""
    facts = be_ready(options.child, options.threads, options.blas)
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.importers.store import ModelStore

    folder = CHECKPOINTS / "full"
    store = ModelStore(models=folder, voices=folder / "voices", cache=ROOT / "build" / "model-cache")
    backend = open_backend(options.child, hubert=store.hubert(), rmvpe=store.rmvpe())
    if options.network == "generator":
        backend.load_voice(store.voice_file(folder / "voices" / f"{VOICE}.pth"))
    compute = {"rmvpe": pitch, "hubert": content, "generator": audio}[options.network]
    speech, _ = sf.read(SPEECH, dtype="float32")

    def prepare(request: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        wave = np.resize(speech, round(request["seconds"] * 16000))

        def work() -> dict[str, Any]:
            result = compute(backend, wave)
            if "save" in request:
                np.save(request["save"], result)
            return {"shape": list(result.shape)}

        return work

    serve(facts | {"device": backend.device, "pid": os.getpid()}, prepare)


def pitch(backend: Any, wave: np.ndarray) -> np.ndarray:
    """Return the salience of the whole wave, as the product computes it."""
    from rvc_batch.engine.converter import PITCH_ALONE
    from rvc_batch.engine.dialect import MelPadding
    from rvc_batch.engine.pitch_windows import salience_blocks

    signal = ArraySignal(wave)
    return np.concatenate(list(salience_blocks(backend, signal, MelPadding.ZEROS, PITCH_ALONE)))


def content(backend: Any, wave: np.ndarray) -> np.ndarray:
    """Return the content features of the wave, segment by segment."""
    pieces = np.split(wave, range(SEGMENT_SAMPLES, wave.size, SEGMENT_SAMPLES))
    return np.concatenate([backend.content(piece, layer=CONTENT_LAYER, project=False) for piece in pieces])


def audio(backend: Any, wave: np.ndarray) -> np.ndarray:
    """Return what the generator makes of noise as latent and the wave, quicker, as excitation; in one piece."""
    from rvc_batch.engine.types import SynthesisInputs

    frames, latent_channels, hop = round(wave.size / 160), 192, 400
    z = np.random.default_rng(0).standard_normal((frames, latent_channels)).astype(np.float32)
    inputs = SynthesisInputs(
        content=np.zeros((frames, 768), np.float32),
        coarse=np.ones(frames, np.int64),
        source=np.resize(wave, frames * hop),
        speaker=0,
        valid=frames,
    )
    result: np.ndarray = backend.generate(z, inputs)
    return result


def difference(ours: np.ndarray, theirs: np.ndarray, network: str) -> dict[str, float]:
    """Return how far the two results are apart; for pitch also in cents of the decoded f0."""
    distance = ours.astype(np.float64) - theirs
    found = {
        "max_abs": float(f"{np.abs(distance).max():.3g}"),
        "relative_rms": float(f"{np.sqrt((distance**2).mean() / (theirs.astype(np.float64) ** 2).mean()):.3g}"),
    }
    if network == "rmvpe":
        from rvc_batch.engine.pitch import decode_salience

        f0, expected = decode_salience(ours).f0, decode_salience(theirs).f0
        is_both = (f0 > 0) & (expected > 0)
        cents = 1200 * np.abs(np.log2(f0[is_both] / expected[is_both]))
        found["max_cents"] = float(f"{cents.max():.3g}") if cents.size else 0.0
        found["voicing_decisions_that_differ"] = int(((f0 > 0) != (expected > 0)).sum())
        found["voiced_frames"] = int((expected > 0).sum())
    return found


class ArraySignal:
    """A signal in memory, as the pitch windows read it."""

    def __init__(self, wave: np.ndarray) -> None:
        self._wave = wave

    @property
    def samples(self) -> int:
        """Length."""
        return int(self._wave.size)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return samples start:stop."""
        return self._wave[start:stop]


if __name__ == "__main__":
    main()

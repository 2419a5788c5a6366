#!/usr/bin/env python3
"""What the formulations for the CPU are worth: against the same networks in plain MLX operations on the stock wheel.

    python benchmarks/plain.py [--runs 3] [--output FILE]

Plain means MLX's own convolutions, GELU, softmax and attention, and the reference BLAS that the wheel for Linux links:
what the layers do on a GPU. It is slow, so the pieces are short: 0.4 s of audio for the generator, 1 s for the others.
Each side runs in a process of its own; both compute the same thing, and the largest difference stands in the table.
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
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

from benchmarks.measuring import Side, alternate, compare, machine_facts, serve, write_result  # noqa: E402
from benchmarks.memory import CHECKPOINTS, SPEECH, make_networks  # noqa: E402

VOICE = "v2_40k_f0"
SECONDS = {"content": 1.0, "pitch": 1.0, "flow": 1.0, "generator": 0.4}
FIRST_SECOND = 3.0  # of the speech: the file begins with silence
THREADS = os.cpu_count() or 1


def main() -> None:
    """Run both sides in turn and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "plain.json")
    parser.add_argument("--side", choices=("plain", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        answer(is_plain=options.side == "plain")
        return
    make_networks("full")
    sides = {name: Side([__file__, "--side", name]) for name in ("ours", "plain")}
    rows = {}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        for network, seconds in tqdm(SECONDS.items(), unit="network"):
            samples = alternate(sides, {"network": network}, runs=options.runs)
            rows[network] = {"seconds": seconds} | compare(samples, baseline="plain")
            kept = {name: str(Path(folder) / f"{name}.npy") for name in sides}
            for name, side in sides.items():
                side.ask({"network": network, "keep": kept[name]})
            ours, plain = (np.load(kept[name]) for name in ("ours", "plain"))
            rows[network]["relative_l2"] = float(np.linalg.norm(ours - plain) / np.linalg.norm(plain))
            tqdm.write(f"{network}: {rows[network]['ours']['ratio']} x plain")
    per_second = {
        name: sum(row[name]["wall_seconds"]["median"] / row["seconds"] for row in rows.values()) for name in sides
    }
    result = {
        "voice": VOICE,
        "threads": THREADS,
        "machine": machine_facts("mlx", "numpy"),
        "sides": {name: side.facts for name, side in sides.items()},
        "rows": rows,
        "wall_seconds_per_second_of_audio": per_second,
        "ratio": round(per_second["plain"] / per_second["ours"], 1),
    }
    for side in sides.values():
        side.close()
    write_result(options.output, result)
    print(f"all networks, per second of audio: {result['ratio']} x plain")


def answer(*, is_plain: bool) -> None:
    """Be one side."""
    from rvc_batch.engine.blas import prepare_process

    library = None if is_plain else prepare_process()
    os.environ["MLX_ENABLE_TF32"] = "0"
    from rvc_batch.engine.mlx_nets import layers
    from rvc_batch.engine.mlx_nets.backend import MlxBackend, matmul_gflops
    from rvc_batch.importers.store import ModelStore

    if is_plain:
        layers._on_cpu = lambda: False  # the GPU's formulations
    files = CHECKPOINTS / "full"
    store = ModelStore(models=files, voices=files / "voices", cache=ROOT / "build" / "model-cache")
    voice = store.voice_file(files / "voices" / f"{VOICE}.pth")
    backend = MlxBackend(hubert=store.hubert(), rmvpe=store.rmvpe())
    backend.load_voice(voice)
    networks = works(backend, voice)

    def prepare(request: dict[str, Any]) -> Callable[[], None]:
        run = networks[request["network"]]

        def work() -> None:
            result = run()
            if "keep" in request:
                np.save(request["keep"], result)

        return work

    blas = "of the wheel" if library is None else str(library.source)
    serve({"device": backend.device, "blas": blas, "gflops_512": round(matmul_gflops())}, prepare)


def works(backend: Any, voice: Any) -> dict[str, Callable[[], Any]]:
    """Return what each network is asked to do."""
    from rvc_batch.engine.dialect import MelPadding
    from rvc_batch.engine.requests import silent_inputs

    wave, rate = sf.read(SPEECH, dtype="float32", start=round(FIRST_SECOND * 16_000), frames=16_000)
    assert rate == 16_000
    rng = np.random.default_rng(0)
    inputs = silent_inputs(voice.config, 100)
    latent = rng.standard_normal((100, voice.config.inter_channels)).astype(np.float32)
    short = inputs.cut(0, 40)
    return {
        "content": lambda: backend.content(wave, layer=12, project=False),
        "pitch": lambda: backend.pitch_salience(wave, padding=MelPadding.ZEROS),
        "flow": lambda: backend.reverse_flow(latent, inputs),
        "generator": lambda: backend.generate(latent[:40], short),
    }


if __name__ == "__main__":
    main()

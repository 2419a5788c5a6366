#!/usr/bin/env python3
"""What float16, bfloat16 and quantised weights cost and save: size, seconds per stage, error against float32.

    python benchmarks/precision.py [--seconds 2] [--runs 3] [--output FILE]

Networks are the synthetic ones of published size from tests/golden, speech is from its inputs. Every row runs in a
process of its own; they are asked in turn with float32. The error of a stage is that of the stage alone: it is given
what float32 computed before it. The error of the whole is between two converted files. The pitch network stays float32
in service; the pitch columns of the half-precision rows show what it would do otherwise.
On a CPU half precision is many times slower: the script takes some minutes there.
"""

from __future__ import annotations

import argparse
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
from benchmarks.memory import CHECKPOINTS, VOICES, make_networks  # noqa: E402

SPEECH = ROOT / "tests" / "golden" / "inputs" / "speech_slt.flac"
ROWS = {"float32": ("float32", 0), "8 bit": ("float32", 8), "4 bit": ("float32", 4)}
HALVES = {"float16": ("float16", 0), "bfloat16": ("bfloat16", 0)}
STAGES = ("features", "pitch", "synth")
TILE_FRAMES = 100  # of the stage "audio" alone
FILTER_SECONDS = 0.04  # of the window in which the f0 of the result is measured
Arrays = dict[str, np.ndarray]


def main() -> None:
    """Run all rows and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=VOICES, default="full")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=3, help="of the rows that are not half precision; those run once")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "precision.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve_row(options.child, options.networks)
        return
    make_networks(options.networks)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        folder = Path(name)
        wave, rate = sf.read(SPEECH, dtype="float32")
        sf.write(folder / "speech.wav", wave[: round(options.seconds * rate)], rate, subtype="FLOAT")
        rows = measured(folder, options.networks, ROWS, runs=options.runs, warm_ups=1)
        rows |= measured(folder, options.networks, HALVES, runs=1, warm_ups=0)
    result = {
        "networks": f"{options.networks}, synthetic",
        "voice": VOICES[options.networks],
        "seconds": options.seconds,
        "machine": machine_facts("mlx", "numpy"),
        "rows": rows,
    }
    write_result(options.output, result)


def measured(
    folder: Path, networks: str, rows: dict[str, tuple[str, int]], *, runs: int, warm_ups: int
) -> dict[str, Any]:
    """Return the table of some rows, each compared with float32."""
    names = dict.fromkeys(["float32", *rows])
    sides = {name: Side([__file__, "--networks", networks, "--child", name]) for name in names}
    try:
        request = {"folder": str(folder)}
        samples = alternate(sides, {"do": "convert"} | request, runs=runs, warm_ups=warm_ups)
        for side in sides.values():
            side.ask({"do": "stages"} | request)
        wall = compare(samples, baseline="float32")
    finally:
        for side in sides.values():
            side.close()
    table = {}
    for name in rows:
        taken = [sample.facts["stage_seconds"] for sample in samples[name]]
        table[name] = {
            "device": sides[name].facts["device"],
            "parameter_mb": sides[name].facts["parameter_mb"],
            "resident_mb": sides[name].facts["resident_mb"],
            "runs": runs,
            "median_stage_seconds": {s: round(float(np.median([t[s] for t in taken])), 3) for s in STAGES},
            "conversion": wall[name],
            "machine_used_by_others": wall["other_share"]["median"],
        }
        if name != "float32":
            table[name]["error"] = errors(folder, name)
    return table


def serve_row(name: str, networks: str) -> None:
    """Load the networks in the precision of a row and answer."""
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter
    from rvc_batch.engine.precision import Precision
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.importers.store import ModelStore

    precision = Precision(*(ROWS | HALVES)[name])
    at = CHECKPOINTS / networks
    store = ModelStore(models=at, voices=at / "voices", cache=ROOT / "build" / "model-cache")
    voice = store.voice_file(at / "voices" / f"{VOICES[networks]}.pth")
    backend = open_backend("mlx", hubert=store.hubert(), rmvpe=store.rmvpe(), precision=precision)
    backend.load_voice(voice)

    import mlx.core as mx
    from mlx.utils import tree_flatten

    from rvc_batch.engine.checkpoints import NetworkKind, read_header
    from rvc_batch.engine.mlx_nets.backend import load_network
    from rvc_batch.engine.mlx_nets.hubert import Hubert
    from rvc_batch.engine.mlx_nets.rmvpe import Rmvpe
    from rvc_batch.engine.mlx_nets.synthesizer import Synthesizer

    mx.clear_cache()
    resident = mx.get_active_memory()  # with the layouts that a CPU packs, and the pitch network in float32

    def size(network: Any) -> float:
        return round(sum(x.nbytes for _, x in tree_flatten(network.parameters())) / 1e6, 1)

    hubert_config = read_header(store.hubert(), NetworkKind.HUBERT).config
    parameters = {
        "content": size(load_network(Hubert(hubert_config), store.hubert(), precision)),
        "voice": size(load_network(Synthesizer(voice.config), voice.checkpoint, precision)),
    }
    rmvpe = load_network(Rmvpe(backend.pitch_config), store.rmvpe(), Precision(precision.dtype))
    parameters["pitch, if it were not float32"] = size(rmvpe)
    mx.clear_cache()
    converter = Converter(backend, scratch=ROOT / "build")
    settings = ConversionSettings(index_rate=0.0, output_format="wav32f", rms_mix_rate=1.0)
    seen: Arrays = {}

    def prepare(request: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        folder = Path(request["folder"])

        def convert() -> dict[str, Any]:
            report = converter.convert(
                folder / "speech.wav",
                folder / f"{name}.wav",
                voice=voice,
                settings=settings,
                inspect=lambda key, array: seen.update({key: np.array(array)}),
            )
            return {"stage_seconds": report.stage_seconds}

        def stages() -> dict[str, Any]:
            exact = folder / "float32.npz"
            if not exact.is_file():
                np.savez(exact, **inputs_of_stages(backend, voice, folder, seen))
            np.savez(folder / f"{name}-stages.npz", **stage_results(backend, rmvpe, dict(np.load(exact)), folder))
            return {}

        return {"convert": convert, "stages": stages}[request["do"]]

    serve({"device": backend.device, "parameter_mb": parameters, "resident_mb": round(resident / 1e6)}, prepare)


def inputs_of_stages(backend: Any, voice: Any, folder: Path, seen: Arrays) -> Arrays:
    """Return what the stages are given in every row, as float32 computes it in a conversion."""
    from rvc_batch.engine.excitation import HarmonicPhase, source_noise
    from rvc_batch.engine.types import PitchTrack

    content, f0 = seen["phone"], seen["pitchf"][: seen["phone"].shape[0]].astype(np.float32)
    track, hop = PitchTrack(f0), voice.config.hop_samples
    noise = source_noise(0, 0, f0.size * hop)
    source = HarmonicPhase.of(track, voice.sample_rate, hop).source(0, f0.size, noise)
    x = _inputs({"content": content, "coarse": track.coarse(), "source": source})
    return {
        "content": x.content,
        "coarse": x.coarse,
        "source": x.source,
        "latent": backend.encode_prior(x)[0],
        "f0": f0,
    }


def stage_results(backend: Any, rmvpe: Any, given: Arrays, folder: Path) -> Arrays:
    """Return what every stage makes of what it is given."""
    import mlx.core as mx

    from rvc_batch.engine.dialect import MelPadding
    from rvc_batch.engine.mlx_nets.mel import LogMel, pad_frames

    wave = _at_16k(folder / "speech.wav")
    x = _inputs(given)
    mel = pad_frames(LogMel()(mx.array(wave)), backend.pitch_config.frame_multiple, MelPadding.ZEROS)
    first = max(0, (x.frames - TILE_FRAMES) // 2)
    tile = x.cut(first, first + TILE_FRAMES)
    dtype = rmvpe.cnn.weight.dtype
    return {
        "content": backend.content(wave, layer=12, project=False),
        "salience": np.array(rmvpe(mel.astype(dtype)).astype(mx.float32))[: 1 + wave.size // 160],
        "prior mean": backend.encode_prior(x)[0],
        "audio": backend.decode(given["latent"][first : first + TILE_FRAMES], tile),
    }


def errors(folder: Path, name: str) -> dict[str, Any]:
    """Return the errors of a row: of every stage alone, and of the converted file."""
    from rvc_batch.engine.pitch import decode_salience

    exact, rounded = (dict(np.load(folder / f"{row}-stages.npz")) for row in ("float32", name))
    found: dict[str, Any] = {f"{key}, relative": relative(rounded[key], exact[key]) for key in exact}
    found["pitch network, f0"] = f0_error(*(decode_salience(s["salience"]).f0 for s in (rounded, exact)))
    f0 = dict(np.load(folder / "float32.npz"))["f0"]
    whole = [_at_16k(folder / f"{row}.wav") for row in (name, "float32")]
    found["whole, mel distance dB"] = round(mel_distance(*whole), 4)
    found["whole, relative"] = relative(*whole)
    heard = [heard_f0(wave, f0) for wave in whole]
    found["whole, f0"] = f0_error(*heard)
    return found


def relative(rounded: np.ndarray, exact: np.ndarray) -> float:
    """Return the L2 norm of the difference over that of the exact result."""
    return float(f"{np.linalg.norm(rounded - exact) / np.linalg.norm(exact):.3g}")


def f0_error(rounded: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """Return the difference of two f0 tracks in cents where both are voiced, and how often they disagree on that."""
    both = (rounded > 0) & (exact > 0)
    cents = np.abs(1200 * np.log2(rounded[both] / exact[both]))
    return {
        "frames": int(both.sum()),
        "cents_median": float(f"{np.median(cents):.3g}") if cents.size else None,
        "cents_95_percent": float(f"{np.quantile(cents, 0.95):.3g}") if cents.size else None,
        "cents_max": float(f"{cents.max():.3g}") if cents.size else None,
        "voicing_differs": int(((rounded > 0) != (exact > 0)).sum()),
    }


def mel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over frames of the root mean square over bands of the log-mel difference, in dB."""
    from rvc_batch.engine.blas import prepare_process

    prepare_process()
    import mlx.core as mx

    from rvc_batch.engine.mlx_nets.mel import LogMel

    log_mel = LogMel()
    difference = np.array(log_mel(mx.array(a)) - log_mel(mx.array(b))) * (20 / np.log(10))
    return float(np.sqrt((difference**2).mean(axis=1)).mean())


def heard_f0(wave: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return f0 of a wave at 16 kHz by normalised autocorrelation, within a fifth of what was asked for, else 0.

    asked: [T] Hz at 100 frames per second, with a second of context before the wave; 0 = unvoiced.
    """
    width = round(FILTER_SECONDS * 16_000)
    found = np.zeros(wave.size // 160, np.float64)
    for t in range(found.size):
        hz = asked[t + 100] if t + 100 < asked.size else 0.0
        start = 160 * t - width // 2
        if hz <= 0 or start < 0:
            continue
        lags = np.arange(int(16_000 / hz / 1.5), int(16_000 / hz * 1.5) + 2)
        if start + width + lags[-1] > wave.size:
            continue
        here = wave[start : start + width].astype(np.float64)
        score = np.array([_correlation(here, wave[start + lag : start + lag + width]) for lag in lags])
        best = int(score.argmax())
        if score[best] > 0.5 and 0 < best < lags.size - 1:
            left, middle, right = score[best - 1 : best + 2]
            found[t] = 16_000 / (lags[best] + (left - right) / (2 * (left - 2 * middle + right)))
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0


def _inputs(given: Arrays) -> Any:
    from rvc_batch.engine.types import SynthesisInputs

    content = given["content"]
    return SynthesisInputs(
        content, given["coarse"].astype(np.int64), given["source"], speaker=0, valid=content.shape[0]
    )


def _at_16k(path: Path) -> np.ndarray:
    import soxr

    wave, rate = sf.read(path, dtype="float32")
    return np.asarray(soxr.resample(wave, rate, 16_000), np.float32)


if __name__ == "__main__":
    main()

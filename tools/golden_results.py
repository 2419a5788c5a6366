#!/usr/bin/env python3
"""Compute every entry of a golden folder with the product's own functions, for its check_golden.py.

    python tools/golden_results.py GOLDEN_DIR CHECKPOINT_DIR OUT_DIR --backend mlx|torch [--only PREFIX …]

CHECKPOINT_DIR holds tiny/ and full/ as made by GOLDEN_DIR/make_checkpoints.py. One NAME.npz per manifest entry is
written to OUT_DIR; compare with `python GOLDEN_DIR/check_golden.py OUT_DIR --strict`. This file reads inputs, calls the
product and names results. It contains no mathematics of its own.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile as sf
from tqdm import tqdm

# a checkout that is not installed works as well
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rvc_batch.engine.backend import Backend, open_backend
from rvc_batch.engine.converter import V2_LAYER, Converter
from rvc_batch.engine.dialect import APPLIO, RVC_2023, RVC_2026, Dialect, MelPadding, Quantise
from rvc_batch.engine.excitation import HarmonicPhase, sample_prior
from rvc_batch.engine.features import align
from rvc_batch.engine.filters import FLOAT64, ScratchSignal, highpass_to_file
from rvc_batch.engine.finishing import Rendering, source_envelope
from rvc_batch.engine.mel_basis import mel_filter_bank
from rvc_batch.engine.network_config import FRAME_RATE_HZ, HOP_16K
from rvc_batch.engine.pitch import decode_salience, fill_unvoiced, transpose
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.segments import find_cuts, plan_segments, upstream_frames
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import ContentFeatures, PitchTrack, SynthesisInputs
from rvc_batch.importers.store import ModelStore

Arrays = dict[str, Any]
Entry = dict[str, Any]
PADDINGS = {"zeros": MelPadding.ZEROS, "reflect": MelPadding.REFLECT}


class Golden:
    """A golden folder, its checkpoints, and the product's functions by component name."""

    def __init__(self, golden: Path, checkpoints: Path, scratch: Path, backend: str) -> None:
        self.folder, self.checkpoints, self.scratch, self.backend_name = golden, checkpoints, scratch, backend
        self.io = _load_module(golden / "golden_io.py")
        self.backend = cache(self._backend)
        self.store = cache(self._store)
        self.components: dict[str, Callable[[Entry], Arrays]] = {
            "mel filter bank of the pitch network": self.mel_basis,
            "log-mel of the pitch network": self.log_mel,
            "pitch network (salience) and decoded f0": self.pitch_network,
            "f0 decoding from salience": self.salience_decoding,
            "speech features": self.content,
            "voice model": self.voice_model,
            "sine excitation": self.sine,
            "transposition and pitch code": self.pitch_code,
            "retrieval blend, protect, doubling of frames": self.blend,
            "48 Hz high-pass, zero phase": self.highpass,
            "loudness mix": self.loudness_mix,
            "split points of a long signal": self.split,
            "whole conversion": self.conversion,
        }

    def compute(self, entry: Entry) -> Arrays:
        """Return the arrays of one entry."""
        return self.components[entry["component"]](entry)

    # ---- inputs ------------------------------------------------------------------------------------------------

    def _store(self, size: str) -> ModelStore:
        folder = self.checkpoints / size
        return ModelStore(models=folder, voices=folder / "voices", cache=self.scratch / f"cache-{size}")

    def _backend(self, size: str) -> Backend:
        return open_backend(self.backend_name, hubert=self.store(size).hubert(), rmvpe=self.store(size).rmvpe())

    def audio(self, entry: Entry) -> Any:
        wave = self.io.audio(str(self.folder), entry["inputs"]["audio"])
        first, last = entry["inputs"].get("samples", [entry["inputs"].get("start_sample", 0), None])
        return wave[first:last]

    def drawn(self, text: str, **names: Any) -> Any:
        """Evaluate a manifest input such as "golden_io.normal(1001, (40, 256))" without eval."""
        call = ast.parse(text.split(" for ")[0], mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        arguments = [names[a.id] if isinstance(a, ast.Name) else ast.literal_eval(a) for a in call.args]
        return getattr(self.io, call.func.attr)(*arguments)

    def stored(self, entry: Entry, name: str) -> Any:
        return np.load(self.folder / entry["file"])[name]

    def signal(self, wave: Any, name: str) -> ScratchSignal:
        path = self.scratch / name
        path.write_bytes(np.asarray(wave, FLOAT64).tobytes())
        return ScratchSignal(path, len(wave))

    # ---- components --------------------------------------------------------------------------------------------

    def mel_basis(self, _: Entry) -> Arrays:
        return {"basis": mel_filter_bank()}

    def log_mel(self, entry: Entry) -> Arrays:
        return {"mel": self.backend("tiny").log_mel(self.audio(entry)).T}

    def pitch_network(self, entry: Entry) -> Arrays:
        backend = self.backend(entry["network_size"])
        padding = PADDINGS[entry["params"]["mel_padding_to_multiple_of_32"]]
        wave = self.audio(entry)
        salience = backend.pitch_salience(wave, padding=padding)
        found = {"hidden": salience, "f0": decode_salience(salience, entry["params"]["threshold"]).f0}
        if "bottom" in entry["outputs"]:
            stages = backend.pitch_stages(wave, padding=padding)
            # the golden arrays are channels first
            found |= {k: np.moveaxis(stages[k], -1, 0) for k in ("bottom", "unet", "cnn")} | {"gru": stages["gru"]}
        return found

    def salience_decoding(self, entry: Entry) -> Arrays:
        return {"f0": decode_salience(self.stored(entry, "aux_salience"), entry["params"]["threshold"]).f0}

    def content(self, entry: Entry) -> Arrays:
        backend = self.backend(entry["network_size"])
        wave = self.audio(entry)
        found = {
            "v2": backend.content(wave, layer=V2_LAYER, project=False),
            "v1": backend.content(wave, layer=RVC_2023.v1_layer, project=True),
        }
        if set(entry["outputs"]) - set(found):
            stages = backend.content_stages(wave)
            found |= {k: stages[k] for k in entry["outputs"] if k.startswith("layer")}
            found["conv"] = stages["conv"].T
        return found

    def voice_model(self, entry: Entry) -> Arrays:
        backend = self.backend(entry["network_size"])
        (path,) = entry["checkpoints"]
        voice = self.store(entry["network_size"]).voice_file(self.checkpoints / entry["network_size"] / path)
        backend.load_voice(voice)
        given = entry["inputs"]
        content = self.drawn(given["phone"])
        coarse, source = np.zeros(0, np.int64), np.zeros(0, np.float32)
        if given["pitchf"]:
            track = PitchTrack(self.drawn(given["pitchf"]))
            hop = voice.config.hop_samples
            coarse = track.coarse()
            phase = HarmonicPhase.of(track, voice.sample_rate, hop)
            source = phase.source(0, track.frames, np.zeros(track.frames * hop, np.float32))
        inputs = SynthesisInputs(content, coarse, source, speaker=given["sid"], valid=given["length"])
        mean, log_std = backend.encode_prior(inputs)
        noise = self.drawn(given["z_noise"])[0].T
        noisy = sample_prior(mean, log_std, noise, entry["params"]["noise_scale"], inputs.mask())
        found = {
            "m": mean.T,
            "logs": log_std.T,
            "mask": inputs.mask(),
            "z": backend.reverse_flow(mean, inputs).T,
            "z_noise": backend.reverse_flow(noisy, inputs).T,
            "audio": backend.decode(mean, inputs),
            "audio_noise": backend.decode(noisy, inputs),
            "dec": backend.generate(self.drawn(given["dec_input"])[0].T.copy(), inputs),
        }
        if source.size:
            found["source"] = backend.excitation(inputs)
        return found

    def sine(self, entry: Entry) -> Arrays:
        params = entry["params"]
        hop = params["samples_per_frame"]
        track = PitchTrack(self.drawn(entry["inputs"]["f0"]))
        phase = HarmonicPhase.of(track, params["sample_rate"], hop)
        noise = self.drawn(entry["inputs"]["noise"]).reshape(-1)
        return {
            "sine": phase.source(0, track.frames, noise, noise_scale=0.0),
            "sine_noise": phase.source(0, track.frames, noise),
            "uv": np.repeat(track.is_voiced(), hop).astype(np.float32),
        }

    def pitch_code(self, entry: Entry) -> Arrays:
        f0 = PitchTrack(self.stored(entry, "aux_f0").astype(np.float32))
        found = {}
        for name in entry["outputs"]:
            kind, variant, semitones = name.split("_", 1)[0], name.split("_", 1)[1], float(name.rsplit("_", 1)[1])
            track = transpose(fill_unvoiced(f0) if variant.startswith("held_over") else f0, semitones)
            found[name] = track.coarse() if kind == "coarse" else track.f0
        return found

    def blend(self, entry: Entry) -> Arrays:
        (path,) = entry["checkpoints"]
        index = FeatureIndex(self.checkpoints / entry["network_size"] / path)
        raw = ContentFeatures(self.stored(entry, "aux_features").astype(np.float32))
        track = PitchTrack(self.drawn(entry["inputs"]["pitchf"]))
        n_frames = upstream_frames(entry["inputs"]["audio_samples"], raw.frames, track.frames)
        local = track.cut(0, n_frames)
        mixed = index.blend(raw, entry["params"]["index_rate"])
        phone = align(mixed, raw, local, n_frames=n_frames, share=entry["params"]["protect"])
        return {"phone": phone, "pitchf": local.f0, "pitch": local.coarse()}

    def highpass(self, entry: Entry) -> Arrays:
        filtered = highpass_to_file(self.signal(self.audio(entry), "raw.f64"), self.scratch / "filtered.f64")
        return {"audio": filtered.read(0, filtered.samples)}

    def loudness_mix(self, entry: Entry) -> Arrays:
        given = entry["inputs"]
        wave = self.io.audio(str(self.folder), given["source"].split()[1])
        envelope = source_envelope(highpass_to_file(self.signal(wave, "raw.f64"), self.scratch / "filtered.f64"))
        found = {}
        for name in entry["outputs"]:
            rate = int(name.split("_")[1].removesuffix("k")) * 1000
            rendering = Rendering.start(self.scratch / "rendered.f32", rate)
            rendering.append(
                self.drawn(given["target"].replace("source samples", "samples"), samples=len(wave), RATE=rate)
            )
            found[name] = np.concatenate(list(rendering.mixed(envelope, float(name.split("_")[2]))))
            rendering.remove()
        return found

    def split(self, entry: Entry) -> Arrays:
        dialect = _dialect(entry)
        signal = highpass_to_file(self.signal(self.audio(entry), "raw.f64"), self.scratch / "filtered.f64")
        cuts = find_cuts(signal, dialect)
        segments = plan_segments(cuts, signal.samples, dialect, exact=False)
        return {"split": np.array(cuts, np.int64), "segments": np.array([s.samples for s in segments], np.int64)}

    def conversion(self, entry: Entry) -> Arrays:
        size, params = entry["network_size"], entry["params"]
        dialect = _dialect(entry)
        folder = self.checkpoints / size
        index = folder / params["index"] if params["index"] else None
        voice = self.store(size).voice_file(folder / "voices" / f"{params['voice']}.pth", index=index)
        settings = ConversionSettings(
            transpose=float(params["semitones"]),
            index_rate=params["index_rate"],
            protect=params["protect"],
            rms_mix_rate=params["rms_mix_rate"],
            speaker_id=params["speaker"],
            resample_rate=params["resample_sr"],
            noise_scale=0.0,
            source_noise_scale=0.0,
            dialect=dialect.name,
            seams="upstream",
            output_format="wav" if dialect.quantise is Quantise.INT16 else "wav32f",
        )
        source, target = self.scratch / "source.wav", self.scratch / "target.wav"
        sf.write(source, self.audio(entry), HOP_16K * FRAME_RATE_HZ, subtype="FLOAT")
        found: Arrays = {}
        Converter(self.backend(size), scratch=self.scratch).convert(
            source, target, voice=voice, settings=settings, rules=dialect, inspect=found.__setitem__
        )
        kind = "int16" if dialect.quantise is Quantise.INT16 else "float32"
        found["audio"], rate = sf.read(target, dtype=kind)
        if "block_rms" in entry["outputs"]:
            # a summary of the result, not a step of the algorithm: level per 0.1 s
            blocks = found["audio"][: found["audio"].size // (rate // 10) * (rate // 10)].reshape(-1, rate // 10)
            found["block_rms"] = np.sqrt(np.mean(np.square(blocks / (32768.0 if kind == "int16" else 1.0)), axis=1))
        return found


def _dialect(entry: Entry) -> Dialect:
    """Choose the dialect by the upstream commit of the entry and give it the entry's windows."""
    commit = entry["upstream"].split("@")[1]
    dialect = next(d for d in (RVC_2023, RVC_2026, APPLIO) if commit.startswith(d.source.split("@")[1].split()[0]))
    windows = {"pad": "pad_s", "query": "query_s", "centre": "center_s", "longest": "max_s"}
    samples = {k: entry["params"][v] * HOP_16K * FRAME_RATE_HZ for k, v in windows.items()}
    return dataclasses.replace(dialect, **samples)


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Compute and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("golden", type=Path)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backend", choices=("mlx", "torch"), default="mlx")
    parser.add_argument("--only", nargs="*", default=[""], metavar="PREFIX")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        golden = Golden(options.golden, options.checkpoints, Path(scratch), options.backend)
        entries = [
            e
            for e in golden.io.load_manifest(str(options.golden))["entries"]
            if any(e["name"].startswith(p) for p in options.only)
        ]
        for entry in tqdm(entries, unit="entry"):
            found = golden.compute(entry)
            np.savez(options.out / f"{entry['name']}.npz", **{k: found[k] for k in entry["outputs"]})


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How good conversions with the demonstration voices are, by measures that know nothing of this project.

    make quality-tools                                    once: the measuring tools' own environment
    python benchmarks/quality.py [--models DIR] [--sentences 12] [--variants mlx torch mlx-index float16 8-bit 4-bit]
                                 [--texts benchmarks/sentences.txt] [--pictures docs/pictures]

flite's voices read sentences that no training has seen; each is converted to the target, and `quality_tools.py`
compares source, output and target: speaker (Resemblyzer), words (PocketSphinx), pitch and voicing (FCPE), mel cepstra,
gaps. DIR holds hubert_base.pt, rmvpe.pt and voices/NAME, as the recipe in tools/demo_voices writes them; without it the
models of the package are measured. A file of texts holds one sentence per line. Writes every figure to --output and
says of each bar whether it is met.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

import rvc_batch  # noqa: E402
from rvc_batch.demo.box import MODELS  # noqa: E402
from rvc_batch.engine.precision import FULL, Precision  # noqa: E402
from rvc_batch.engine.settings import ConversionSettings  # noqa: E402
from rvc_batch.importers.adopt import adopt  # noqa: E402
from rvc_batch.importers.store import ModelStore  # noqa: E402
from rvc_batch.jobs.presets import Presets  # noqa: E402
from rvc_batch.plots.conversion import draw_mels  # noqa: E402
from tools.demo_voices.sentences import HELD_OUT  # noqa: E402
from tools.demo_voices.speech import RATE_HZ, Style, speak  # noqa: E402

WORK = ROOT / "build" / "quality"
TOOLS = ROOT / "build" / "quality-venv" / "bin" / "python"
ROUTES = (("rms", "slt"), ("awb", "slt"), ("kal16", "slt"), ("slt", "rms"))

SPEAKER_SHARE = 0.90  # of the target's similarity to itself
EXTRA_WORD_ERRORS = 0.15  # over those of the source audio
MAX_CENTS, MIN_VOICING = 25.0, 0.92


@dataclass(frozen=True)
class Variant:
    """One way to convert."""

    backend: str = "mlx"
    index_rate: float | None = None  # None: what the voice's own settings say
    precision: Precision = FULL


VARIANTS = {
    "mlx": Variant(),
    "mlx-index": Variant(index_rate=0.2),
    "torch": Variant("torch"),
    "float16": Variant(precision=Precision("float16")),
    "8-bit": Variant(precision=Precision(quantize_bits=8)),
    "4-bit": Variant(precision=Precision(quantize_bits=4)),
}


def main() -> None:
    """Speak, convert, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, help="default: those of the package")
    parser.add_argument("--texts", type=Path, help="sentences to measure with; default: those that training keeps out")
    parser.add_argument("--sentences", type=int, help="how many of them; default: all")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["mlx"])
    parser.add_argument("--tools", type=Path, default=TOOLS, help="the Python of the measuring tools")
    parser.add_argument("--pictures", type=Path, help="a folder for mel spectra of the first sentence of each route")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/quality.json, or quality-TEXTS.json")
    options = parser.parse_args()
    if not options.tools.is_file():
        sys.exit(f"{options.tools} is not there; run `make quality-tools` first")
    texts = (read_texts(options.texts) if options.texts else list(HELD_OUT))[: options.sentences]
    if not texts:
        sys.exit(f"there is no sentence to measure with in {options.texts or 'HELD_OUT'}; give at least one")
    spoken = {voice: say_all(voice, texts) for voice in sorted({voice for route in ROUTES for voice in route})}
    home = make_home(options.models)
    shifts = semitones_between(spoken, home)
    request = convert_all(spoken, shifts, home, options.models, options.variants, texts)
    done = subprocess.run(
        [options.tools, ROOT / "benchmarks" / "quality_tools.py"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    results = summarise(json.loads(done.stdout), spoken, options.variants)
    results["machine"] = f"{platform.machine()} {platform.system()}"
    results["models"] = {p.name: p.stat().st_size for p in sorted(options.models.rglob("*")) if p.is_file()}
    if options.pictures:
        draw_routes(spoken, options.variants[0], options.pictures)
    name = f"quality-{options.texts.stem}.json" if options.texts else "quality.json"
    output = options.output or ROOT / "benchmarks" / "results" / name
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    report(results)


def read_texts(path: Path) -> list[str]:
    """Return the lines of a file, without comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def say_all(voice: str, texts: list[str]) -> list[Path]:
    """Let a voice of flite read every text, once."""
    paths = []
    for number, text in enumerate(texts):
        path = WORK / "spoken" / f"{voice}-{number:02}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.wav"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speak(voice, text, Style()).wave, RATE_HZ)
        paths.append(path)
    return paths


def make_home(models: Path) -> Path:
    """Return a fresh home with the models of a folder."""
    home = WORK / "home"
    shutil.rmtree(home, ignore_errors=True)
    store = ModelStore(models=home / "models", voices=home / "voices", cache=home / "state" / "cache")
    for part in (
        models / "hubert_base.pt",
        models / "rmvpe.pt",
        *sorted(p for p in (models / "voices").iterdir() if p.is_dir()),
    ):
        adopt(part, store)
    return home


def semitones_between(spoken: dict[str, list[Path]], home: Path) -> dict[tuple[str, str], int]:
    """Return the transposition of each route, from the median pitch of both voices, rounded."""
    medians = {}
    for voice, paths in spoken.items():
        tracks = [rvc_batch.pitch(path, home=home).f0 for path in paths[:3]]
        voiced = np.concatenate([f0[f0 > 0] for f0 in tracks])
        medians[voice] = float(np.median(voiced)) if voiced.size else 0.0
        if not voiced.size:
            sys.exit(f"the pitch network finds no pitch in the speech of {voice}; it is not trained")
    return {(a, b): round(12 * float(np.log2(medians[b] / medians[a]))) for a, b in ROUTES}


def convert_all(
    spoken: dict[str, list[Path]],
    shifts: dict[tuple[str, str], int],
    home: Path,
    models: Path,
    variants: list[str],
    texts: list[str],
) -> dict[str, Any]:
    """Convert every sentence along every route; return the request for the measuring tools."""
    files = [{"path": str(p), "text": t} for paths in spoken.values() for p, t in zip(paths, texts, strict=True)]
    pairs = []
    jobs = [(v, a, b, i) for v in variants for a, b in ROUTES for i in range(len(texts))]
    for name, a, b, i in tqdm(jobs, desc="converting", unit="file"):
        variant = VARIANTS[name]
        target = WORK / "converted" / name / f"{a}-{b}-{i:02}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        own = Presets(voices=models / "voices").of_voice(b)
        settings = ConversionSettings().with_changes(**(own.values if own else {}))
        settings = settings.with_changes(auto_key=0.0, transpose=shifts[a, b])  # every route has a transposition
        if variant.index_rate is not None:
            settings = settings.with_changes(index_rate=variant.index_rate)
        how: dict[str, Any] = {"backend": variant.backend, "precision": variant.precision, "settings": settings}
        rvc_batch.convert(spoken[a][i], target, voice=b, home=home, overwrite=True, **how)
        files.append({"path": str(target), "text": texts[i]})
        pair = {"source": str(spoken[a][i]), "output": str(target), "parallel": str(spoken[b][i])}
        pairs.append({**pair, "semitones": shifts[a, b], "variant": name, "route": f"{a} → {b}", "sentence": i})
    return {"files": files, "pairs": pairs}


def draw_routes(spoken: dict[str, list[Path]], variant: str, folder: Path) -> None:
    """Draw mel spectra of source, output and target of the first sentence, one picture per route."""
    folder.mkdir(parents=True, exist_ok=True)
    for a, b in ROUTES:
        output = WORK / "converted" / variant / f"{a}-{b}-00.wav"
        sides = [(f"{a} says it", spoken[a][0]), (f"{a} → {b}", output), (f"{b} says it", spoken[b][0])]
        draw_mels(sides, folder / f"{a}-to-{b}.png")


def summarise(measured: dict[str, Any], spoken: dict[str, list[Path]], variants: list[str]) -> dict[str, Any]:
    """Return the figures of every route and variant, and whether each bar is met."""
    files = measured["files"]
    embedded = {voice: np.array([files[str(p)]["embedding"] for p in paths]) for voice, paths in spoken.items()}
    results: dict[str, Any] = {"sentences": len(next(iter(spoken.values()))), "routes": []}
    for name in variants:
        for a, b in ROUTES:
            pairs = [p for p in measured["pairs"] if p["variant"] == name and p["route"] == f"{a} → {b}"]
            made = np.array([files[p["output"]]["embedding"] for p in pairs])
            to_target, to_source = _other_sentences(made, embedded[b]), _other_sentences(made, embedded[a])
            own = float(np.mean(_other_sentences(embedded[b], embedded[b])))
            errors = {side: _word_error_rate([files[p[side]] for p in pairs]) for side in ("source", "output")}
            figures = {
                "speaker_to_target": float(to_target.mean()),
                "speaker_to_source": float(to_source.mean()),
                "target_to_itself": own,
                "nearer_to_target": float(np.mean(to_target > to_source)),
                "word_error_rate": errors["output"],
                "word_error_rate_of_source": errors["source"],
                "median_cents": float(np.median([p["median_cents"] for p in pairs])),
                "voicing_agreement": float(np.mean([p["voicing_agreement"] for p in pairs])),
                "peak": max(p["peak"] for p in pairs),
                "gap_frames": sum(p["gap_frames"] for p in pairs),
                "mcd_db": float(np.mean([p["mcd_db"] for p in pairs])),
                "mcd_of_source_db": float(np.mean([p["mcd_source_db"] for p in pairs])),
            }
            bars = {
                "speaker": figures["speaker_to_target"] >= SPEAKER_SHARE * own and figures["nearer_to_target"] == 1.0,
                "words": errors["output"] <= errors["source"] + EXTRA_WORD_ERRORS,
                "pitch": figures["median_cents"] <= MAX_CENTS and figures["voicing_agreement"] >= MIN_VOICING,
                "sound": figures["peak"] < 1.0 and figures["gap_frames"] == 0,
            }
            results["routes"].append({"variant": name, "source": a, "target": b, **figures, "bars": bars})
    return results


def report(results: dict[str, Any]) -> None:
    """Print one line per route."""
    head = ("variant", "route", "speaker", "self", "words", "source", "cents", "voicing", "mcd", "missed")
    print(("{:14}{:14}" + "{:>9}" * 7 + "  {}").format(*head))
    for r in results["routes"]:
        missed = ", ".join(name for name, met in r["bars"].items() if not met) or "none"
        print(
            f"{r['variant']:14}{r['source'] + ' → ' + r['target']:14}{r['speaker_to_target']:9.3f}"
            f"{r['target_to_itself']:9.3f}{r['word_error_rate']:9.3f}{r['word_error_rate_of_source']:9.3f}"
            f"{r['median_cents']:9.1f}{r['voicing_agreement']:9.3f}{r['mcd_db']:9.2f}  {missed}"
        )


def _other_sentences(made: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the mean cosine of each row with the references of the other sentences, so that words do not count."""
    cosines = made @ references.T
    others = ~np.eye(*cosines.shape, dtype=bool)
    return np.sum(cosines * others, axis=1) / np.maximum(others.sum(axis=1), 1)


def _word_error_rate(files: list[dict[str, Any]]) -> float:
    return sum(f["errors"] for f in files) / sum(f["words"] for f in files)


if __name__ == "__main__":
    main()

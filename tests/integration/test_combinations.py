"""Thirty combinations of options through the watch folder: what comes out has the promised length, rate, channels and
tags, is finite, and is not silent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine.decoding import open_audio
from rvc_batch.engine.provenance import Provenance, digest
from rvc_batch.engine.settings import ConversionSettings

ROOT = Path(__file__).parents[2]
ANNA, TOM = 40_000, 32_000  # the rates of the voices
CONFIG = """[watch]
settle_seconds = 0.2
rescan_seconds = 0.5
[conversion]
seed = 5
"""


@dataclass(frozen=True)
class Case:
    """A drop: of `frames` samples at `rate` Hz, with settings in its own file. made_*: what must come out."""

    made_rate: int
    settings: dict[str, Any] = field(default_factory=dict)
    rate: int = 44_100
    channels: int = 1
    frames: int = 17_011
    folder: str = "anna"
    made_channels: int = 1

    @property
    def samples(self) -> int:
        return round(self.frames * self.made_rate / self.rate)


CASES = {
    "defaults": Case(ANNA),
    "wav24": Case(ANNA, {"output_format": "wav24", "transpose": 12}),
    "wav32f": Case(ANNA, {"output_format": "wav32f", "transpose": -12.5, "protect": 0.0}, rate=8_000, frames=3_001),
    "flac": Case(ANNA, {"output_format": "flac", "index_rate": 1.0}, rate=96_000, frames=40_001),
    "flac24 up": Case(96_000, {"output_format": "flac24", "resample_rate": 96_000, "index_rate": 0.0}),
    "mp3": Case(44_100, {"output_format": "mp3", "resample_rate": 44_100}),
    "mp3 next rate": Case(44_100, {"output_format": "mp3"}, rate=48_000),
    "ogg": Case(48_000, {"output_format": "ogg", "resample_rate": 48_000}, rate=22_050, frames=9_007),
    "opus": Case(48_000, {"output_format": "opus"}),
    "opus at 24": Case(24_000, {"output_format": "opus", "resample_rate": 24_000}, frames=23_456),
    "m4a": Case(44_100, {"output_format": "m4a"}, rate=16_000, frames=7_777),
    "stereo": Case(ANNA, {"channels": "stereo", "formant_shift": 0.8}, channels=2, made_channels=2),
    "stereo mp3": Case(
        48_000, {"channels": "stereo", "output_format": "mp3", "resample_rate": 48_000}, channels=2, made_channels=2
    ),
    "stereo of mono": Case(ANNA, {"channels": "stereo", "output_format": "flac"}),
    "mid and side": Case(
        44_100, {"channels": "mid_side", "resample_rate": 44_100, "output_format": "wav24"}, channels=2, made_channels=2
    ),
    "mono of stereo": Case(ANNA, {"channels": "mono"}, channels=2, rate=48_000),
    "loudness": Case(ANNA, {"loudness_lufs": -23.0, "rms_mix_rate": 1.0}, frames=40_000),
    "gate, clean": Case(ANNA, {"gate_db": -60.0, "rms_mix_rate": 0.5, "noise_reduction": 0.6}),
    "effects": Case(
        ANNA, {"effects": "compressor(threshold_db=-20, ratio=3), reverb(room_size=0.3, wet_level=0.2)"}, frames=30_000
    ),
    "effects, stereo, loudness": Case(
        48_000,
        {"effects": "gain(gain_db=-3)", "channels": "stereo", "loudness_lufs": -16.0, "output_format": "opus"},
        channels=2,
        made_channels=2,
        frames=40_000,
    ),
    "harvest": Case(ANNA, {"pitch_method": "harvest", "f0_smoothing": 3}),
    "pm": Case(ANNA, {"pitch_method": "pm", "transpose": 5}, rate=16_000, frames=8_000),
    "joined": Case(ANNA, {"pitch_method": "rmvpe+pm", "autotune": 0.7, "autotune_scale": "A minor"}),
    "auto key": Case(ANNA, {"auto_key": 220.0, "formant_shift": 1.2, "formant_quefrency_ms": 1.5}),
    "applio": Case(ANNA, {"dialect": "applio", "noise_scale": 0.0, "source_noise_scale": 0.0}),
    "2026": Case(ANNA, {"dialect": "rvc-2026", "seed": 2**62}),
    "no pitch, v1": Case(TOM, {"dialect": "applio", "protect": 0.5}, folder="tom"),
    "no pitch, resampled": Case(16_000, {"resample_rate": 16_000, "output_format": "ogg"}, folder="tom", frames=44_100),
    "recipe": Case(48_000, {"transpose": -3}, folder="podcast"),
    "short": Case(ANNA, {"output_format": "flac"}, rate=8_000, frames=80),
}
RECIPE = 'voice = "anna"\nresample_rate = 48000\noutput_format = "flac"\ntranspose = 9\nprotect = 0.2\n'
OF_RECIPE = {"resample_rate": 48_000, "output_format": "flac", "protect": 0.2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, checkpoints: Callable[[str], Path]) -> Path:
    """Return a home in which everything was dropped and rendered in one run of the daemon."""
    home, tiny = tmp_path_factory.mktemp("box"), checkpoints("tiny")
    for folder in ("models", "voices/anna", "recipes", *(f"inbox/{case.folder}" for case in CASES.values())):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for name in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(tiny / name, home / "models")
    shutil.copy(tiny / "voices" / "v2_40k_f0_feat48.pth", home / "voices" / "anna" / "anna.pth")
    for index in (tiny / "index").glob("added_*_v2.index"):
        shutil.copy(index, home / "voices" / "anna")
    shutil.copy(tiny / "voices" / "v1_32k_nof0.pth", home / "voices" / "tom.pth")
    (home / "rvc-batch.toml").write_text(CONFIG)
    (home / "recipes" / "podcast.toml").write_text(RECIPE)
    for name, case in CASES.items():
        source = home / "inbox" / case.folder / f"{name}.wav"
        lines = [f"{key} = {value!r}" for key, value in case.settings.items()]
        source.with_name(f"{source.name}.toml").write_text("\n".join(lines))
        sf.write(source, speechlike(case), case.rate, "PCM_16")
    ran = subprocess.run(
        [sys.executable, "-m", "rvc_batch", "--home", str(home), "run", "--until-idle"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return home


def speechlike(case: Case) -> np.ndarray:
    """Return a buzz with gaps and a little noise, [frames, channels]."""
    time = np.arange(case.frames) / case.rate
    buzz = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 9))
    noise = np.random.default_rng(case.frames).standard_normal((case.frames, case.channels)) * 0.01
    loud = 0.1 * (np.sin(2 * np.pi * 3 * time) > -0.5)
    return (loud * buzz)[:, None] * np.linspace(1.0, 0.5, case.channels) + noise


def result_of(home: Path, name: str) -> Path:
    (found,) = (home / "outbox" / CASES[name].folder).glob(f"{name}.*")
    return found


def test_there_are_thirty_and_each_has_one_result(home: Path) -> None:
    assert len(CASES) == 30
    outputs = {path.relative_to(home / "outbox") for path in (home / "outbox").rglob("*.*") if path.is_file()}
    assert len(outputs) == 30, sorted(map(str, outputs))
    assert not list((home / "failed").rglob("*.txt"))


@pytest.mark.parametrize("name", CASES)
def test_what_comes_out_is_what_was_asked_for(home: Path, name: str) -> None:
    case, path = CASES[name], result_of(home, name)
    with open_audio(path) as opened:
        rate, channels, comment = opened.sample_rate, opened.channels, opened.comment
        audio = np.concatenate(list(opened.blocks()))
    assert (rate, channels, len(audio)) == (case.made_rate, case.made_channels, case.samples)
    assert np.isfinite(audio).all()
    assert np.sqrt(np.mean(audio**2)) > 1e-4
    assert np.abs(audio).max() <= 1.0
    made = Provenance.read(comment, path.name)
    wanted = {"seed": 5, **(OF_RECIPE if case.folder == "podcast" else {}), **case.settings}
    assert made.settings == ConversionSettings().with_changes(**wanted)
    voice = "tom" if case.folder == "tom" else "anna"
    weights = home / "voices" / ("tom.pth" if voice == "tom" else "anna/anna.pth")
    assert (made.voice, made.voice_sha256) == (voice, digest(weights))
    assert bool(made.index_sha256) == (voice == "anna" and made.settings.index_rate > 0)
    assert made.source.name == f"{name}.wav"
    assert made.source.sha256 == digest(home / "processed" / case.folder / f"{name}.wav")


@pytest.mark.parametrize("name", ["effects", "mid and side", "no pitch, v1"])
def test_each_can_be_rendered_again_from_its_tags(home: Path, tmp_path: Path, name: str) -> None:
    result, target = result_of(home, name), tmp_path / "again"
    again = subprocess.run(
        [sys.executable, "-m", "rvc_batch", "--home", str(home), "render-again", str(result), "-o", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr  # it compares the bytes itself
    assert target.read_bytes() == result.read_bytes()

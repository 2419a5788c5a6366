"""No click at the seams: thirty cuts of real speech, and a detector that finds the clicks of the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile as sf

from rvc_batch.engine.converter import Converter
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import F32, SynthesisInputs
from tests.engine_fakes import NumpyBackend, fake_voice

SPEECH = Path(__file__).parents[1] / "golden" / "inputs" / "long_100s.flac"
RATE = 16_000
# cuts every two seconds instead of every 38, so that half a minute has many
RULES = replace(RVC_2023, centre=2 * RATE, query=RATE // 2, longest=3 * RATE)
SETTINGS = ConversionSettings(index_rate=0.0, rms_mix_rate=1.0, source_noise_scale=0.0, output_format="wav32f")


class HummingBackend(NumpyBackend):
    """Returns the excitation alone: a seam in phase is a seam in the audio, and nothing else is."""

    def decode(self, latent: F32, x: SynthesisInputs) -> F32:
        return 5 * x.source


def clicks(folder: Path, seams: str) -> tuple[int, list[int]]:
    """Return the number of cuts, and where the audio bends more sharply than its sine ever does."""
    sf.write(folder / "in.wav", sf.read(SPEECH, stop=66 * RATE)[0], RATE, "FLOAT")
    found: dict[str, np.ndarray] = {}
    Converter(HummingBackend(), scratch=folder).convert(  # type: ignore[arg-type]
        folder / "in.wav",
        folder / "out.wav",
        voice=fake_voice(),
        settings=SETTINGS.with_changes(seams=seams),
        rules=RULES,
        inspect=found.__setitem__,
    )
    wave, rate = sf.read(folder / "out.wav")
    bend = np.abs(np.diff(wave, 2))
    f0_hz = float(np.median(found["pitchf"]))
    sharpest = np.abs(wave).max() * (2 * np.pi * f0_hz / rate) ** 2
    return len(found["split"]), np.flatnonzero(bend > 1.5 * sharpest).tolist()


def test_thirty_seams_of_speech_have_no_click(tmp_path: Path) -> None:
    n_cuts, found = clicks(tmp_path, "exact")
    assert n_cuts >= 30
    assert found == []


def test_the_detector_hears_the_originals_seams(tmp_path: Path) -> None:
    n_cuts, found = clicks(tmp_path, "upstream")
    groups = 1 + int((np.diff(found) > 100).sum())
    assert groups > n_cuts // 2

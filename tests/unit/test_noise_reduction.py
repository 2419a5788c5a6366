"""Noise reduction: in pieces as in one, at its length, deaf to nothing, and without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import noisereduce
import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import noise_reduction
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.noise_reduction import reduced
from rvc_batch.engine.settings import ConversionSettings
from tests.engine_fakes import NumpyBackend, fake_voice

RATE = 16_000


def speech(seconds: float) -> np.ndarray:
    """Return bursts of a buzz over hiss."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 9))
    hiss = np.random.default_rng(0).standard_normal(time.size) * 0.01
    return (0.2 * buzz * (np.sin(2 * np.pi * 0.8 * time) > 0.95) + hiss).astype(np.float32)


def blocks(wave: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (wave[at : at + size] for at in range(0, wave.size, size))


def treated(wave: np.ndarray, size: int = 5_000, strength: float = 1.0) -> np.ndarray:
    return np.concatenate(list(reduced(blocks(wave, size), RATE, strength)))


def test_pieces_are_the_whole_at_once() -> None:
    wave = speech(95.3)
    whole = noisereduce.reduce_noise(y=np.pad(wave, (0, -wave.size % 256)), sr=RATE, chunk_size=None, padding=0)
    difference = treated(wave) - whole[: wave.size]
    assert np.linalg.norm(difference) < 1e-4 * np.linalg.norm(whole)
    for border in range(20 * RATE, wave.size, 20 * RATE):
        assert np.abs(difference[border - 400 : border + 400]).max() < 1e-4


def test_a_border_changes_nothing_where_the_mean_knows_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = speech(15)
    whole = treated(wave)
    monkeypatch.setattr(noise_reduction, "PIECE_S", 0.5)
    np.testing.assert_allclose(treated(wave), whole, atol=1e-6)


@pytest.mark.parametrize(("rate", "strength"), [(8_000, 0.7), (40_000, 0.3), (48_000, 1.0), (192_000, 1.0)])
def test_it_is_what_the_library_does_at_any_rate(rate: int, strength: float) -> None:
    wave = speech(640_000 / RATE)[: 256 * 1_000]
    whole = noisereduce.reduce_noise(y=wave, sr=rate, prop_decrease=strength, chunk_size=None, padding=0)
    found = np.concatenate(list(reduced(blocks(wave, 5_000), rate, strength)))
    assert np.linalg.norm(found - whole) < 1e-4 * np.linalg.norm(whole)


@pytest.mark.parametrize("seconds", [0.001, 0.5, 19.99, 40.0, 61.7])
@pytest.mark.parametrize("size", [700, 100_000])
def test_length_stays_and_blocks_make_no_difference(seconds: float, size: int) -> None:
    wave = speech(seconds)
    found = treated(wave, size)
    assert found.size == wave.size
    np.testing.assert_array_equal(found, treated(wave, 5_000))


def test_hiss_goes_and_the_voice_stays() -> None:
    wave = speech(30)
    found, half = treated(wave), treated(wave, strength=0.5)
    swing = np.sin(2 * np.pi * 0.8 * np.arange(wave.size) / RATE)
    loud, quiet = swing > 0.97, swing < 0.5

    def level(x: np.ndarray, where: np.ndarray) -> float:
        return float(np.sqrt(np.mean(x[where] ** 2)))

    assert level(found, quiet) < level(half, quiet) < level(wave, quiet)
    assert level(found, quiet) < 0.2 * level(wave, quiet)
    assert level(found, loud) > 0.4 * level(wave, loud)


def test_digital_silence_stays_silence() -> None:
    wave = np.concatenate([np.zeros(30 * RATE, np.float32), speech(5), np.zeros(70 * RATE, np.float32)])
    found = treated(wave)
    assert np.isfinite(found).all()
    assert np.abs(found[: 20 * RATE]).max() < 1e-6
    assert np.abs(found[-20 * RATE :]).max() < 1e-6


def convert(folder: Path, strength: float) -> np.ndarray:
    sf.write(folder / "in.wav", speech(2), RATE)
    settings = ConversionSettings(index_rate=0.0, output_format="wav32f", noise_reduction=strength)
    converter = Converter(NumpyBackend(), scratch=folder / "scratch")  # type: ignore[arg-type]
    converter.convert(folder / "in.wav", folder / "out.wav", voice=fake_voice(), settings=settings)
    return sf.read(folder / "out.wav", dtype="float32")[0]


def test_a_conversion_is_treated_and_as_long_as_before(tmp_path: Path) -> None:
    plain, clean = convert(tmp_path, 0.0), convert(tmp_path, 1.0)
    assert plain.size == clean.size
    assert np.linalg.norm(clean) < np.linalg.norm(plain)
    np.testing.assert_array_equal(clean, convert(tmp_path, 1.0))

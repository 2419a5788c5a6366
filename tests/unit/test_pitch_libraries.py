"""Harvest and Praat: real libraries on real speech, in pieces and whole, and what happens without them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine.pitch_libraries import harvest, praat
from rvc_batch.engine.pitch_pieces import Pieces, f0_in_pieces
from rvc_batch.errors import ExtraMissing

SPEECH = Path(__file__).parents[1] / "golden" / "inputs" / "long_100s.flac"
PIECES = Pieces(kept=150, context=75, whole=0)
WHOLE = Pieces(kept=1, context=0, whole=1 << 20)


class ArraySignal:
    """A signal in memory that notes what is read of it."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave, self.samples = wave, wave.size
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= self.samples
        self.reads.append((start, stop))
        return self.wave[start:stop]


def chirp(seconds: float, first_hz: float, last_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a harmonic glide at 16 kHz and its f0 per 10 ms."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    f0 = first_hz + (last_hz - first_hz) * time / seconds
    phase = 2 * np.pi * np.cumsum(f0) / 16_000
    wave = sum(np.sin(k * phase) / k for k in range(1, 8))
    return 0.1 * wave, f0[::160]


def cents(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    both = (found > 0) & (expected > 0)
    return 1_200 * np.abs(np.log2(found[both] / expected[both]))


def estimate(method: str, wave: np.ndarray) -> np.ndarray:
    return harvest(wave) if method == "harvest" else praat(wave, 0.6)


@pytest.mark.parametrize("method", ["harvest", "pm"])
@pytest.mark.parametrize("extra", [0, 1, 80, 159])
def test_frames_are_centred_on_every_ten_milliseconds(method: str, extra: int) -> None:
    wave, expected = chirp(1.0 + extra / 16_000, 110.0, 330.0)
    found = estimate(method, wave)
    assert found.dtype == np.float32
    assert found.size == 1 + wave.size // 160
    inside = slice(10, 90)
    assert (found[inside] > 0).all()
    # a frame too early or too late would be 2.2 Hz away, 17 cents on average
    assert np.median(cents(found[inside], expected[inside])) < 4


@pytest.mark.parametrize("method", ["harvest", "pm"])
def test_silence_is_unvoiced(method: str) -> None:
    assert not estimate(method, np.zeros(16_000)).any()


def test_praats_threshold_decides_on_voicing() -> None:
    wave, _ = sf.read(SPEECH, stop=3 * 16_000)
    voiced = [int((praat(wave, threshold) > 0).sum()) for threshold in (0.2, 0.6, 0.95)]
    assert voiced[0] > voiced[1] > voiced[2] > 0


def test_praat_takes_waves_shorter_than_its_window() -> None:
    assert not praat(np.ones(300), 0.6).any()


# Harvest decides on doubtful frames otherwise when one sample is appended to what it is given
@pytest.mark.parametrize(("method", "agreement"), [("harvest", 0.95), ("pm", 0.98)])
def test_pieces_give_nearly_what_the_whole_gives(method: str, agreement: float) -> None:
    wave, _ = sf.read(SPEECH, stop=3 * 16_000 + 77)
    (whole,) = f0_in_pieces(ArraySignal(wave), lambda w: estimate(method, w), WHOLE)
    pieces = np.concatenate(list(f0_in_pieces(ArraySignal(wave), lambda w: estimate(method, w), PIECES)))
    assert pieces.size == whole.size
    assert np.mean((pieces > 0) == (whole > 0)) > agreement
    assert np.median(cents(pieces, whole)) < 0.1


@pytest.mark.parametrize("samples", [159, 160, 48_000, 48_159, 48_160, 97_001])
def test_pieces_cover_every_frame_once_with_context_on_both_sides(samples: int) -> None:
    signal = ArraySignal(np.arange(samples, dtype=np.float64))

    def position(wave: np.ndarray) -> np.ndarray:  # of a frame's first sample: a frame that is moved or lost is seen
        return np.append(wave, wave[-1])[np.arange(1 + wave.size // 160) * 160].astype(np.float32)

    found = np.concatenate(list(f0_in_pieces(signal, position, Pieces(100, 40, 0))))
    n_frames = 1 + samples // 160
    expected = np.minimum(np.arange(n_frames) * 160, samples)
    np.testing.assert_array_equal(found[: n_frames - 1], expected[: n_frames - 1])
    for start, stop in signal.reads:
        kept_first = start // 160 + (40 if start else 0)
        assert kept_first % 100 == 0
        assert stop == samples or stop == (min(kept_first + 140, n_frames) - 1) * 160 + 1


def test_a_signal_up_to_the_limit_is_one_piece() -> None:
    signal = ArraySignal(np.zeros(160 * 50))
    assert len(list(f0_in_pieces(signal, lambda w: np.zeros(1 + w.size // 160, np.float32), Pieces(10, 5, 51)))) == 1
    assert len(list(f0_in_pieces(signal, lambda w: np.zeros(1 + w.size // 160, np.float32), Pieces(10, 5, 50)))) == 6


@pytest.mark.parametrize(
    ("method", "module", "package"),
    [
        ("harvest", "pyworld", "pyworld-prebuilt"),
        ("pm", "parselmouth", "praat-parselmouth"),
    ],
)
def test_a_missing_library_is_one_sentence(
    method: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissing, match=f"pitch method {method} needs {package}.*pip install {package}, or"):
        estimate(method, np.zeros(16_000))

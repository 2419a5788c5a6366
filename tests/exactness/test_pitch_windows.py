"""Pitch of a long signal in windows against one pass over the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.pitch import decode_salience
from rvc_batch.engine.pitch_windows import _planes, salience_blocks
from rvc_batch.engine.tiling import WorkSizes

WHOLE = WorkSizes(pitch_whole_frames=1 << 20)
WINDOWED = WorkSizes(pitch_window_frames=1_024, pitch_whole_frames=0)
GOLDEN_INPUTS = Path(__file__).parents[1] / "golden" / "inputs"


class ArraySignal:
    """A signal in memory."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave = wave

    @property
    def samples(self) -> int:
        return self.wave.size

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= self.wave.size
        return self.wave[start:stop]


@pytest.fixture(scope="module")
def speech() -> ArraySignal:
    wave, _ = sf.read(GOLDEN_INPUTS / "long_100s.flac", stop=30 * 16_000 + 77)
    return ArraySignal(wave)


@pytest.mark.parametrize("padding", list(MelPadding))
def test_the_convolutions_in_windows_equal_one_pass(
    framework: str, padding: MelPadding, speech: ArraySignal, open_networks: Callable[[str, str], Backend]
) -> None:
    backend = open_networks(framework, "tiny")
    n_frames = 1 + speech.samples // 160
    (whole,) = _planes(backend, speech, padding, n_frames, 1 << 20)
    for window in (320, 1_024):
        tiled = np.concatenate(list(_planes(backend, speech, padding, n_frames, window)))
        np.testing.assert_allclose(tiled, whole, atol=2e-6 * np.abs(whole).max())


def test_forward_recurrence_is_carried_exactly_and_look_ahead_does_the_rest(
    framework: str, speech: ArraySignal, open_networks: Callable[[str, str], Backend]
) -> None:
    backend = open_networks(framework, "tiny")
    (whole,) = salience_blocks(backend, speech, MelPadding.ZEROS, WHOLE)
    windowed = np.concatenate(list(salience_blocks(backend, speech, MelPadding.ZEROS, WINDOWED)))
    assert windowed.shape == whole.shape
    # the last window hears the end itself: exact up to rounding
    np.testing.assert_allclose(windowed[2_048:], whole[2_048:], atol=2e-6)
    np.testing.assert_allclose(windowed, whole, atol=1e-4)
    f0_whole, f0_windowed = decode_salience(whole).f0, decode_salience(windowed).f0
    assert np.mean((f0_whole > 0) == (f0_windowed > 0)) > 0.999


def test_without_look_ahead_the_difference_is_seen(
    speech: ArraySignal, open_networks: Callable[[str, str], Backend]
) -> None:
    backend = open_networks("torch", "tiny")
    (whole,) = salience_blocks(backend, speech, MelPadding.ZEROS, WHOLE)
    blind = np.concatenate(list(salience_blocks(backend, speech, MelPadding.ZEROS, WINDOWED, look_ahead=0)))
    assert np.abs(blind - whole).max() > 1e-3

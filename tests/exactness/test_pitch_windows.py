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
from rvc_batch.engine.pitch_windows import PitchWindows, _planes, _rows, salience_blocks
from rvc_batch.engine.tiling import WorkSizes

SIZES = WorkSizes()
WHOLE = PitchWindows(whole=1 << 20)
WINDOWED = PitchWindows(kept=1_024, whole=0)
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
    for tile_frames in (320, 1_024):
        tiled = np.concatenate(list(_planes(backend, speech, padding, n_frames, tile_frames)))
        np.testing.assert_allclose(tiled, whole, atol=2e-6 * np.abs(whole).max())


def test_forward_recurrence_is_carried_exactly_and_look_ahead_does_the_rest(
    framework: str, speech: ArraySignal, open_networks: Callable[[str, str], Backend]
) -> None:
    backend = open_networks(framework, "tiny")
    (whole,) = salience_blocks(backend, speech, MelPadding.ZEROS, SIZES, WHOLE)
    windowed = np.concatenate(list(salience_blocks(backend, speech, MelPadding.ZEROS, SIZES, WINDOWED)))
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
    (whole,) = salience_blocks(backend, speech, MelPadding.ZEROS, SIZES, WHOLE)
    blind = PitchWindows(kept=1_024, look_ahead=0, whole=0)
    heard = np.concatenate(list(salience_blocks(backend, speech, MelPadding.ZEROS, SIZES, blind)))
    assert np.abs(heard - whole).max() > 1e-3


@pytest.mark.parametrize("windows", [WHOLE, PitchWindows(kept=512, look_ahead=128, whole=0)])
def test_how_much_is_convolved_at_once_changes_nothing(
    framework: str, windows: PitchWindows, speech: ArraySignal, open_networks: Callable[[str, str], Backend]
) -> None:
    backend = open_networks(framework, "tiny")
    part = ArraySignal(speech.wave[: 12 * 16_000 + 5])
    sizes = (WorkSizes(pitch_tile_frames=n) for n in (1 << 20, 992, 320))
    whole, *others = (
        np.concatenate(list(salience_blocks(backend, part, MelPadding.REFLECT, n, windows))) for n in sizes
    )
    for other in others:
        np.testing.assert_allclose(other, whole, atol=2e-6)


def test_rows_are_cut_anew_without_losing_any() -> None:
    blocks = [np.arange(a, b, dtype=np.float32)[:, None] for a, b in ((0, 5), (5, 6), (6, 20), (20, 23))]
    for size in (1, 4, 7, 23, 40):
        found = list(_rows(iter(blocks), size))
        assert [b.shape[0] for b in found[:-1]] == [size] * (len(found) - 1)
        np.testing.assert_array_equal(np.concatenate(found)[:, 0], np.arange(23))

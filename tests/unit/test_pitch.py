"""Decoding, filling, transposing and coding of f0."""

import numpy as np
import pytest

from rvc_batch.engine.pitch import CENTS_OF_BIN_0, decode_salience, fill_unvoiced, transpose
from rvc_batch.engine.types import PitchTrack


def bin_hz(index: float) -> float:
    return float(10 * 2 ** ((CENTS_OF_BIN_0 + 20 * index) / 1200))


def track(*f0: float) -> PitchTrack:
    return PitchTrack(np.array(f0, np.float32))


@pytest.mark.parametrize("index", [0, 1, 3, 4, 180, 356, 359])
def test_a_single_peak_decodes_to_its_bin_also_at_the_edges(index: int) -> None:
    salience = np.zeros((1, 360), np.float32)
    salience[0, index] = 0.8
    assert decode_salience(salience).f0[0] == pytest.approx(bin_hz(index), rel=1e-6)


def test_neighbours_pull_the_mean() -> None:
    salience = np.zeros((1, 360), np.float32)
    salience[0, 100:102] = 0.5
    assert decode_salience(salience).f0[0] == pytest.approx(bin_hz(100.5), rel=1e-6)


def test_a_frame_at_the_threshold_is_unvoiced() -> None:
    salience = np.full((2, 360), 0.0, np.float32)
    salience[0, 10], salience[1, 10] = np.float32(0.03), np.nextafter(np.float32(0.03), np.float32(1)) + 1e-6
    np.testing.assert_array_equal(decode_salience(salience).f0 > 0, [False, True])


def test_filling_interpolates_inside_and_holds_the_ends() -> None:
    np.testing.assert_allclose(fill_unvoiced(track(0, 100, 0, 200, 0)).f0, [100, 100, 150, 200, 200])
    np.testing.assert_array_equal(fill_unvoiced(track(0, 0)).f0, [0, 0])


def test_transposing_keeps_unvoiced_frames() -> None:
    np.testing.assert_allclose(transpose(track(0, 220), 12).f0, [0, 440])


def test_pitch_code_spans_1_to_255_and_unvoiced_is_1() -> None:
    np.testing.assert_array_equal(track(0, 20, 50, 1100, 2000).coarse(), [1, 1, 1, 255, 255])


def test_pitch_track_refuses_what_is_not_f0() -> None:
    with pytest.raises(ValueError, match="negative or non-finite"):
        track(float("nan"))
    with pytest.raises(ValueError, match="expected float32"):
        PitchTrack(np.zeros(3))  # type: ignore[arg-type]

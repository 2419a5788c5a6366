"""Loudness against the filters of the standard and against pyloudnorm; the gain and its ceiling."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from rvc_batch.engine.programme_loudness import Measure, ProgrammeMeter, k_weighting

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own syntax
    import pyloudnorm


def measured(wave: np.ndarray, rate: int, block: int = 7_919) -> Measure:
    meter = ProgrammeMeter(rate, 1 if wave.ndim == 1 else wave.shape[1])
    for at in range(0, len(wave), block):
        meter.add(wave[at : at + block].astype(np.float32))
    return meter.measure()


def programme(rate: int, channels: int, seconds: float = 7.3) -> np.ndarray:
    """Noise that is loud, soft and silent by turns, so that both gates matter."""
    rng = np.random.default_rng(channels)
    count = int(rate * seconds)
    wave = 0.1 * rng.standard_normal((count, channels))
    envelope = np.select([np.arange(count) < count // 3, np.arange(count) < count // 2], [1.0, 0.03], 0.3)
    envelope[-rate:] = 0
    return np.squeeze(wave * envelope[:, None])


def test_the_filters_are_those_of_the_standard_at_48_khz() -> None:
    (shelf_b, shelf_a), (pass_b, pass_a) = k_weighting(48_000)
    np.testing.assert_allclose(shelf_b, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-12)
    np.testing.assert_allclose(shelf_a, [1.0, -1.69065929318241, 0.73248077421585], atol=1e-12)
    np.testing.assert_allclose(pass_b, [1.0, -2.0, 1.0])
    np.testing.assert_allclose(pass_a, [1.0, -1.99004745483398, 0.99007225036621], atol=1e-12)


def test_a_full_scale_sine_of_1_khz_in_one_channel_is_minus_3_lufs() -> None:
    tone = np.sin(2 * np.pi * 997 * np.arange(48_000 * 3) / 48_000)
    assert measured(tone, 48_000).lufs == pytest.approx(-3.01, abs=0.01)
    assert measured(np.stack([tone, tone], axis=1), 48_000).lufs == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_pyloudnorms(rate: int, channels: int) -> None:
    wave = programme(rate, channels)
    expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(wave)
    assert measured(wave, rate).lufs == pytest.approx(expected, abs=0.05)  # which rounds its blocks otherwise


def test_what_is_below_the_absolute_gate_does_not_count() -> None:
    wave = 2e-4 * np.random.default_rng(0).standard_normal(48_000 * 6)  # −71.5 LUFS
    wave[:48_000] *= 1.6
    expected = pyloudnorm.Meter(48_000, filter_class="DeMan").integrated_loudness(wave)
    assert measured(wave, 48_000).lufs == pytest.approx(expected, abs=0.05)


def test_blocks_of_any_size_measure_the_same() -> None:
    wave = programme(40_000, 2, 2.0)
    whole, pieces = measured(wave, 40_000, len(wave)), measured(wave, 40_000, 101)
    assert pieces.lufs == pytest.approx(whole.lufs, abs=1e-9)
    assert pieces.true_peak == pytest.approx(whole.true_peak, abs=1e-6)


def test_true_peak_lies_between_the_samples() -> None:
    tone = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000 + np.pi / 4)
    assert np.abs(tone).max() == pytest.approx(0.7071, abs=1e-3)
    assert measured(0.9 * tone, 48_000).true_peak == pytest.approx(0.9, abs=0.02)


def test_silence_and_short_files_have_no_loudness() -> None:
    assert measured(np.zeros(48_000), 48_000) == Measure(-math.inf, 0.0)
    assert measured(np.full(19_000, 0.1), 48_000).lufs == -math.inf


def test_the_gain_reaches_the_target_unless_a_peak_forbids_it() -> None:
    assert Measure(-30.0, 0.01).gain(-16.0) == pytest.approx(10 ** (14 / 20))
    assert Measure(-20.0, 0.5).gain(-10.0) == pytest.approx(10 ** (-1 / 20) / 0.5)
    assert Measure(-math.inf, 0.0).gain(-10.0) == 1.0
    assert Measure(-math.inf, 2.0).gain(-10.0) == pytest.approx(10 ** (-1 / 20) / 2)

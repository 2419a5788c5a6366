"""The streaming loudness mix equals its whole-array definition."""

import numpy as np
import pytest

from rvc_batch.engine.loudness import EnergyMeter, EnvelopeMix, input_gain, output_gain, to_pcm16


def rms_of_windows(wave: np.ndarray, rate: int) -> np.ndarray:
    """RMS over 1 s every 0.5 s, centred, zeros beyond the ends: written as the definition reads."""
    hop = rate // 2
    padded = np.pad(wave.astype(np.float64), hop)
    return np.array([np.sqrt(np.mean(padded[k * hop : k * hop + 2 * hop] ** 2)) for k in range(1 + wave.size // hop)])


@pytest.mark.parametrize("samples", [1, 7_999, 8_000, 8_001, 16_000, 50_000])
def test_energy_meter_equals_windows_at_any_block_size(samples: int) -> None:
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    for block in (1_000, 8_000, 100_000):
        meter = EnergyMeter(16_000)
        for at in range(0, samples, block):
            meter.add(wave[at : at + block])
        padded = np.pad(wave, (0, 16_000))  # the definition's last window may reach beyond the end
        expected = rms_of_windows(padded, 16_000)[: 1 + samples // 8_000]
        np.testing.assert_allclose(meter.envelope(), expected, rtol=1e-12)


def test_gain_moves_loudness_all_the_way_at_rate_zero() -> None:
    source, target = np.full(5, 0.2), np.full(5, 0.1)
    np.testing.assert_allclose(EnvelopeMix(source, target, 100, 0.0).gain(0, 100), 2.0)
    np.testing.assert_allclose(EnvelopeMix(source, target, 100, 1.0).gain(0, 100), 1.0)


def test_gain_in_blocks_equals_gain_at_once() -> None:
    rng = np.random.default_rng(0)
    mix = EnvelopeMix(rng.random(7), rng.random(9), 5_000, 0.25)
    pieces = [mix.gain(at, min(at + 333, 5_000)) for at in range(0, 5_000, 333)]
    np.testing.assert_array_equal(np.concatenate(pieces), mix.gain(0, 5_000))


def test_interpolation_uses_half_pixel_centres() -> None:
    mix = EnvelopeMix(np.array([1.0, 3.0]), np.ones(1), 4, 0.0)
    np.testing.assert_allclose(mix.gain(0, 4), [1.0, 1.5, 2.5, 3.0])


def test_silent_output_is_not_boosted_beyond_the_floor() -> None:
    gain = EnvelopeMix(np.ones(3), np.zeros(3), 10, 0.5).gain(0, 10)
    np.testing.assert_allclose(gain, 1e3)


def test_peaks_are_only_ever_brought_down() -> None:
    assert input_gain(0.0) == input_gain(0.9) == output_gain(0.5) == 1.0
    assert input_gain(1.9) == pytest.approx(0.5)
    assert output_gain(1.98) == pytest.approx(0.5)


def test_pcm16_truncates_toward_zero_and_never_wraps() -> None:
    wave = np.array([0.99999, -0.99999, 1.5e-5, -4.5e-5, 2.0, -2.0], np.float32)
    np.testing.assert_array_equal(to_pcm16(wave, 1.0), [32767, -32767, 0, -1, 32767, -32768])

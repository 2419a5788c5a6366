"""The streaming filters give the same numbers as their whole-array forms."""

from pathlib import Path

import numpy as np
import pytest
import soxr
from scipy import signal as scipy_signal

from rvc_batch.engine import filters
from rvc_batch.engine.filters import FLOAT64, ScratchSignal, highpass_to_file, resample_blocks


def scratch(folder: Path, wave: np.ndarray) -> ScratchSignal:
    path = folder / "signal.f64"
    path.write_bytes(wave.astype(FLOAT64).tobytes())
    return ScratchSignal(path, wave.size)


@pytest.mark.parametrize("samples", [19, 20, 1000, 1001, 1036, 5000])
def test_highpass_in_blocks_equals_filtfilt_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    monkeypatch.setattr(filters.ScratchSignal.blocks, "__defaults__", (500,))
    monkeypatch.setattr(filters, "BLOCK", 500)
    wave = np.random.default_rng(samples).standard_normal(samples)
    b, a = scipy_signal.butter(5, 48, btype="high", fs=16_000)
    expected = scipy_signal.filtfilt(b, a, 0.5 * wave)
    filtered = highpass_to_file(scratch(tmp_path, wave), tmp_path / "out.f64", 0.5)
    np.testing.assert_array_equal(filtered.read(0, samples), expected)


def test_highpass_refuses_a_signal_shorter_than_its_padding(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="18 samples are too few"):
        highpass_to_file(scratch(tmp_path, np.zeros(18)), tmp_path / "out.f64")


@pytest.mark.parametrize("samples", [2, 3, 50, 400])
def test_reading_beyond_the_ends_reflects_like_numpy(tmp_path: Path, samples: int) -> None:
    wave = np.arange(samples, dtype=float)
    signal = scratch(tmp_path, wave)
    padded = np.pad(wave, 160, mode="reflect")
    for start, stop in [(-160, samples + 160), (-7, 2), (samples - 1, samples + 9), (0, samples)]:
        np.testing.assert_array_equal(signal.read(start, stop), padded[160 + start : 160 + stop])


@pytest.mark.parametrize(("rate_in", "rate_out"), [(44_100, 16_000), (8_000, 16_000), (40_000, 24_000)])
def test_resampling_in_blocks_equals_resampling_at_once(rate_in: int, rate_out: int) -> None:
    wave = np.random.default_rng(0).standard_normal(30_000).astype(np.float32)
    blocks = (wave[at : at + 777] for at in range(0, wave.size, 777))
    streamed = np.concatenate(list(resample_blocks(blocks, rate_in, rate_out)))
    whole = soxr.resample(wave, rate_in, rate_out, "VHQ")
    assert abs(streamed.size - whole.size) <= 1
    n = min(streamed.size, whole.size)
    # float32 arithmetic inside soxr: rounding only
    np.testing.assert_allclose(streamed[:n], whole[:n], atol=2e-6)


def test_equal_rates_pass_blocks_through() -> None:
    wave = np.ones(10, np.float32)
    assert next(resample_blocks([wave], 16_000, 16_000)) is wave

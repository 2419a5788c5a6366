"""Noise by position and the phase of the source."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvc_batch.engine.excitation import (
    HarmonicPhase,
    prior_noise,
    sample_prior,
    source_noise,
)
from rvc_batch.engine.types import PitchTrack


@settings(deadline=None, max_examples=30)
@given(start=st.integers(0, 700), frames=st.integers(0, 400))
def test_noise_depends_on_position_only(start: int, frames: int) -> None:
    whole = prior_noise(5, 0, 1_200, 3)
    np.testing.assert_array_equal(prior_noise(5, start, frames, 3), whole[start : start + frames])
    samples = source_noise(5, 0, 40_000)
    at = start * 40
    np.testing.assert_array_equal(source_noise(5, at, frames), samples[at : at + frames])


def test_noise_is_standard_normal_and_differs_by_seed_and_stream() -> None:
    noise = source_noise(1, 0, 200_000)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert not np.array_equal(noise[:100], source_noise(2, 0, 100))
    assert not np.array_equal(noise[:128], prior_noise(1, 0, 128, 1)[:, 0])


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="position -1"):
        source_noise(0, -1, 10)


def test_phase_counts_its_own_sample() -> None:
    track = PitchTrack(np.array([100.0, 200.0], np.float32))
    source = HarmonicPhase.of(track, 1_000, 10).source(0, 2, np.zeros(20, np.float32))
    cycles = np.cumsum(np.repeat([0.1, 0.2], 10))
    np.testing.assert_allclose(source, 0.1 * np.sin(2 * np.pi * cycles), atol=1e-7)


def test_a_slice_of_the_source_continues_the_phase() -> None:
    f0 = (200 + 50 * np.sin(np.arange(3_000) / 9)).astype(np.float32)
    f0[40:60] = 0
    phase = HarmonicPhase.of(PitchTrack(f0), 40_000, 400)
    noise = source_noise(0, 0, 3_000 * 400)
    whole = phase.source(0, 3_000, noise)
    np.testing.assert_array_equal(
        phase.source(2_500, 100, noise[2_500 * 400 : 2_600 * 400]), whole[2_500 * 400 : 2_600 * 400]
    )


def test_unvoiced_frames_are_noise_of_a_third_of_the_amplitude() -> None:
    noise = source_noise(0, 0, 8_000)
    track = PitchTrack(np.array([0.0, 100.0], np.float32))
    source = HarmonicPhase.of(track, 400_000, 4_000).source(0, 2, noise)
    np.testing.assert_allclose(source[:4_000], noise[:4_000] * 0.1 / 3, rtol=1e-6)
    silent = HarmonicPhase.of(track, 400_000, 4_000).source(0, 2, noise, noise_scale=0.0)
    assert not silent[:4_000].any()
    np.testing.assert_allclose(source[4_000:] - silent[4_000:], noise[4_000:] * 0.003, atol=1e-7)


def test_prior_sample_is_masked() -> None:
    mean, log_std = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    latent = sample_prior(mean, log_std, np.ones((3, 2), np.float32), 0.5, np.array([1, 1, 0], np.float32))
    np.testing.assert_allclose(latent, [[0.5, 0.5], [0.5, 0.5], [0, 0]])

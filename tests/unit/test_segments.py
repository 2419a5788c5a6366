"""Cut points and segment contexts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvc_batch.engine.dialect import APPLIO, RVC_2023, RVC_2026, Dialect
from rvc_batch.engine.segments import find_cuts, plan_segments, segment_frames, upstream_frames


class ArraySignal:
    """A signal in memory."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave = wave

    @property
    def samples(self) -> int:
        return self.wave.size

    def read(self, start: int, stop: int) -> np.ndarray:
        pad = max(0, -start, stop - self.samples)
        return np.pad(self.wave, pad, mode="reflect")[pad + start : pad + stop] if pad else self.wave[start:stop]


def hubert_frames(samples: int) -> int:
    return (samples - 400) // 320 + 1


@pytest.mark.parametrize("dialect", [RVC_2023, RVC_2026, APPLIO])
def test_a_signal_of_41_seconds_is_one_piece(dialect: Dialect) -> None:
    wave = np.random.default_rng(1).standard_normal(41 * 16_000 - 160)
    assert find_cuts(ArraySignal(wave), dialect) == []
    assert find_cuts(ArraySignal(np.append(wave, 1.0)), dialect) != []


@pytest.mark.parametrize("dialect", [RVC_2023, RVC_2026])
def test_cut_falls_into_a_silent_gap(dialect: Dialect) -> None:
    wave = np.random.default_rng(2).standard_normal(60 * 16_000)
    quiet = 35 * 16_000
    wave[quiet : quiet + 400] *= 1e-6
    (cut,) = find_cuts(ArraySignal(wave), dialect)
    assert quiet + 80 <= cut <= quiet + 320


def test_signed_sum_is_fooled_by_a_loud_balanced_spot_and_absolute_sum_is_not() -> None:
    wave = 0.1 + np.random.default_rng(3).random(60 * 16_000)
    loud = 36 * 16_000
    wave[loud : loud + 320] = np.where(np.arange(320) % 2, 5.0, -5.0)
    quiet = 40 * 16_000
    wave[quiet : quiet + 320] = 0.01
    assert abs(find_cuts(ArraySignal(wave), RVC_2023)[0] - loud) < 400
    assert abs(find_cuts(ArraySignal(wave), RVC_2026)[0] - quiet) < 400


def test_the_first_of_equal_minima_wins() -> None:
    assert find_cuts(ArraySignal(np.zeros(60 * 16_000)), RVC_2023) == [32 * 16_000]


@given(
    samples=st.integers(320, 200 * 16_000),
    cuts=st.lists(st.integers(20 * 16_000, 200 * 16_000), max_size=4, unique=True),
)
def test_exact_segments_cover_the_signal_and_get_all_their_frames(samples: int, cuts: list[int]) -> None:
    cuts = sorted(c for c in cuts if 160 <= c < samples)
    segments = plan_segments(cuts, samples, RVC_2023, exact=True)
    assert segments[0].start == 0
    assert segments[-1].stop == samples
    for segment, following in pairwise(segments):
        assert segment.stop == following.start
    for segment in segments:
        assert 2 * hubert_frames(segment.samples) >= segment_frames(segment)
        assert segment.right >= RVC_2023.pad


@given(samples=st.integers(320, 41 * 16_000))
def test_upstream_loses_one_or_two_frames_of_a_single_piece(samples: int) -> None:
    (segment,) = plan_segments([], samples, RVC_2023, exact=False)
    assert segment.samples == samples + 2 * RVC_2023.pad
    lost = segment_frames(segment) - upstream_frames(segment.samples, hubert_frames(segment.samples), None)
    assert 1 <= lost <= 3

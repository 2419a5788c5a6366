"""Speeds and time left: the numbers, and when there is none."""

import pytest

from rvc_batch.jobs.estimate import median, speed_of, time_left
from rvc_batch.jobs.overview import Backlog


def backlog(*speeds: float, seconds: float = 1200.0, unknown: int = 0) -> Backlog:
    return Backlog(voice="anna", jobs=2, unknown=unknown, seconds=seconds, speeds=speeds)


def test_two_samples_are_no_speed() -> None:
    assert speed_of((10.0, 11.0)) is None


def test_percentiles_interpolate() -> None:
    speed = speed_of((14.0, 10.0, 12.0))
    assert speed is not None
    assert (speed.median, speed.p10, speed.p90) == pytest.approx((12.0, 10.4, 13.6))


def test_speeds_that_agree_give_one_number() -> None:
    left = time_left([backlog(10.0, 10.5, 9.5)])
    assert left is not None
    assert (left.low, left.high) == pytest.approx((120.0, 120.0))


def test_speeds_that_differ_by_more_than_a_quarter_give_a_range() -> None:
    left = time_left([backlog(8.0, 10.0, 12.0)])
    assert left is not None
    assert (left.low, left.high) == pytest.approx((1200 / 11.6, 1200 / 8.4))


def test_voices_add_up_and_one_unknown_voice_hides_the_sum() -> None:
    left = time_left([backlog(10.0, 10.0, 10.0), backlog(20.0, 20.0, 20.0)])
    assert left is not None
    assert left.high == pytest.approx(180.0)
    assert time_left([backlog(10.0, 10.0, 10.0), backlog(20.0)]) is None
    assert time_left([backlog(10.0, 10.0, 10.0, unknown=1)]) is None


def test_nothing_to_do_takes_no_time() -> None:
    left = time_left([])
    assert left is not None
    assert (left.low, left.high) == (0.0, 0.0)


def test_the_median_of_nothing_is_none() -> None:
    assert median([]) is None
    assert median([3.0, 1.0]) == 2.0

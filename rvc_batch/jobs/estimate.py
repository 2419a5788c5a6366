"""How fast and how long: speeds from what was rendered, time left for what waits. Pure.

A voice with fewer than three finished jobs has no speed, and a backlog with such a voice, or with a job of unknown
length, has no estimate: no number is better than a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rvc_batch.jobs.overview import Backlog

MIN_SAMPLES = 3
WIDE = 0.25  # spread of the speeds from which on a range is shown


@dataclass(frozen=True)
class Speed:
    """Audio seconds per wall second."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class TimeLeft:
    """Wall seconds until everything known is rendered; `low` equals `high` where the speeds agree."""

    low: float
    high: float


def speed_of(speeds: Sequence[float]) -> Speed | None:
    """Return median, 10th and 90th percentile; None for fewer than three samples."""
    if len(speeds) < MIN_SAMPLES:
        return None
    ordered = sorted(speeds)
    return Speed(_percentile(ordered, 0.5), _percentile(ordered, 0.1), _percentile(ordered, 0.9))


def time_left(backlog: Iterable[Backlog]) -> TimeLeft | None:
    """Return the time for all jobs, one after the other; None where a length or a speed is unknown."""
    low = high = 0.0
    for part in backlog:
        speed = speed_of(part.speeds)
        if speed is None or part.unknown:
            return None
        is_wide = (speed.p90 - speed.p10) / speed.median > WIDE
        low += part.seconds / (speed.p90 if is_wide else speed.median)
        high += part.seconds / (speed.p10 if is_wide else speed.median)
    return TimeLeft(low, high)


def why_no_estimate(backlog: Iterable[Backlog]) -> str:
    """Say what `time_left` lacks; an empty string where it lacks nothing."""
    for part in backlog:
        if part.unknown:
            return f"{part.unknown} of unknown length"
        if len(part.speeds) < MIN_SAMPLES:
            return f"voice {part.voice} has {len(part.speeds)} of the {MIN_SAMPLES} finished jobs that tell its speed"
    return ""


def median(values: Sequence[float]) -> float | None:
    """Return the median; None for nothing."""
    return _percentile(sorted(values), 0.5) if values else None


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Interpolate between the two values nearest to this share of the way up."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])

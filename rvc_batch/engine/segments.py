"""Where a long signal is cut: a pure function of the audio and the dialect.

Never of memory, device or backend. A cut is the first quietest spot, measured over 160 samples, within ±6 s of every
38 s. Source: RVC infer/vc/pipeline.py Pipeline.pipeline @ 4338f12.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from rvc_batch.engine.dialect import CutRule, Dialect
from rvc_batch.engine.network_config import HOP_16K
from rvc_batch.engine.types import F64, Segment

WINDOW = HOP_16K  # samples over which quietness is summed
HALF_WINDOW = WINDOW // 2


class Signal(Protocol):
    """A signal at 16 kHz that can be read anywhere."""

    @property
    def samples(self) -> int:
        """Length."""

    def read(self, start: int, stop: int) -> F64:
        """Return samples start:stop, reflected beyond both ends."""


def find_cuts(signal: Signal, dialect: Dialect) -> list[int]:
    """Return the cut positions in samples; empty when the signal is rendered in one piece."""
    if signal.samples + WINDOW <= dialect.longest:
        return []
    cuts = []
    for centre in range(dialect.centre, signal.samples, dialect.centre):
        first = centre - dialect.query
        last = min(centre + dialect.query, signal.samples)
        loudness = _moving_sum(signal.read(first - HALF_WINDOW, last + HALF_WINDOW), dialect.cut_rule)
        cuts.append(first + int(np.argmin(loudness)))
    return cuts


def _moving_sum(wave: F64, rule: CutRule) -> F64:
    """Sum 160 neighbouring samples, in upstream's order of addition so that ties fall alike."""
    source = np.abs(wave) if rule is CutRule.ABSOLUTE_SUM else wave
    total: F64 = np.zeros(wave.size - WINDOW)
    for offset in range(WINDOW):
        total += source[offset : offset - WINDOW]
    return np.abs(total)


def plan_segments(cuts: Sequence[int], samples: int, dialect: Dialect, *, exact: bool) -> list[Segment]:
    """Turn cut positions into segments with their context.

    Cuts are rounded down to whole frames. Upstream gives every segment one pad of context on both sides, and 160
    samples more on the right of all but the last; its content network then often yields a frame or two less than
    the segment is long. `exact` extends the right context by what is missing, and by nothing where nothing is.
    """
    borders = [0, *(c // HOP_16K * HOP_16K for c in cuts), samples]
    segments = []
    for index, (start, stop) in enumerate(pairwise(borders)):
        is_last = index == len(borders) - 2
        right = dialect.pad if is_last else dialect.pad + HOP_16K
        if exact:
            right = max(right, _right_context(stop - start, dialect.pad))
        segments.append(Segment(index=index, start=start, stop=stop, left=dialect.pad, right=right))
    return segments


def segment_frames(segment: Segment) -> int:
    """Return the 10 ms frames a segment needs: those of what is kept and one pad on each side."""
    return -(-(segment.stop - segment.start) // HOP_16K) + 2 * (segment.left // HOP_16K)


def upstream_frames(samples: int, content_frames: int, pitch_frames: int | None) -> int:
    """Return the frames upstream synthesises for a segment of `samples` samples, context included.

    Its content network (`content_frames` at 50 fps) often yields a frame less than the segment is long.
    """
    n_frames = min(samples // HOP_16K, 2 * content_frames)
    return n_frames if pitch_frames is None else min(n_frames, pitch_frames)


def _right_context(kept: int, pad: int) -> int:
    """Return the right context with which `kept` samples get all their frames.

    HuBERT needs 400 samples for its first 20 ms frame and 320 for each further one.
    """
    frames = -(-kept // HOP_16K) + 2 * (pad // HOP_16K)
    content_frames = -(-frames // 2)
    return 400 + 320 * (content_frames - 1) - pad - kept

"""The silence gate: where the source is silent, so is the output. Kills the hiss that a voice makes out of gaps.

What opens it is the source, not the output: the networks fill a gap with breath that is not in it. It opens 100 ms
before the source is loud enough and closes 300 ms after, within 10 ms each, so that no onset and no end is cut.
"""

from __future__ import annotations

import numpy as np

from rvc_batch.engine.filters import ScratchSignal
from rvc_batch.engine.network_config import FRAME_RATE_HZ, HOP_16K
from rvc_batch.engine.types import F32, F64

BEFORE_FRAMES, AFTER_FRAMES = 10, 30  # of 10 ms


def levels(signal: ScratchSignal, gain: float) -> F32:
    """Return the RMS of each 10 ms of a signal at 16 kHz as it was before `gain`, [1 + N // 160]."""
    found = []
    for block in signal.blocks(FRAME_RATE_HZ * HOP_16K):
        padded = np.pad(block, (0, -block.size % HOP_16K)).reshape(-1, HOP_16K)
        found.append(np.sqrt(np.square(padded).mean(axis=1)) / gain)
    return np.concatenate(found).astype(np.float32)


class Gate:
    """Gain per sample of the output, 0 to 1."""

    def __init__(self, source_levels: F32, threshold_db: float, sample_rate: int) -> None:
        """Open where the levels reach `threshold_db` of full scale; sample_rate: of the output."""
        is_loud = source_levels >= 10 ** (threshold_db / 20)
        at = np.arange(is_loud.size)
        latest = np.maximum.accumulate(np.where(is_loud, at, -(AFTER_FRAMES + 1)))
        coming = np.minimum.accumulate(np.where(is_loud, at, at.size + BEFORE_FRAMES + 1)[::-1])[::-1]
        self._open = ((at - latest <= AFTER_FRAMES) | (coming - at <= BEFORE_FRAMES)).astype(np.float32)
        self._rate = sample_rate

    def gain(self, start: int, stop: int) -> F64:
        """Return the gain of samples start:stop."""
        position = (np.arange(start, stop) + 0.5) * (FRAME_RATE_HZ / self._rate) - 0.5  # frames count at their centre
        gain: F64 = np.interp(position, np.arange(self._open.size), self._open)
        return gain

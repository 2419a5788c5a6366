"""f0 of a long signal in pieces, for methods that look at all of what they are given.

Such a method has no finite reach: its path, its loudness reference or its attention spans the whole. A signal of up to
`Pieces.whole` frames is one piece; a longer one is cut into pieces that keep `kept` frames and hear `context` more on
both sides, so that what is kept never lies near an end. Where two pieces meet, the one ends and the other begins: their
contexts overlap there, and no frame is a mixture of both. The pieces are part of the result, and therefore fixed: they
never depend on a memory limit. docs/pitch.md has the differences that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rvc_batch.engine.network_config import HOP_16K
from rvc_batch.engine.pitch_windows import PaddedSignal
from rvc_batch.engine.types import F32, F64


@dataclass(frozen=True)
class Pieces:
    """How a long signal is cut, in frames: kept per piece, heard beyond that on both sides, one piece up to `whole`."""

    kept: int
    context: int
    whole: int


def f0_in_pieces(signal: PaddedSignal, estimate: Callable[[F64], F32], pieces: Pieces) -> Iterator[F32]:
    """Yield what `estimate` returns for consecutive frames, 1 + samples // 160 rows in all.

    estimate: from a wave [N] at 16 kHz to one row per frame, [1 + N // 160, …], the first centred on its first sample.
    """
    n_frames = 1 + signal.samples // HOP_16K
    kept = n_frames if n_frames <= pieces.whole else pieces.kept
    for start in range(0, n_frames, kept):
        stop = min(start + kept, n_frames)
        first, last = max(start - pieces.context, 0), min(stop + pieces.context, n_frames)
        end = signal.samples if last == n_frames else (last - 1) * HOP_16K + 1
        found = estimate(signal.read(first * HOP_16K, end))
        assert found.shape[0] == last - first
        yield found[start - first : stop - first]

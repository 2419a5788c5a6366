"""Formant shift of the input: its resonances move, its pitch stays, so that another size of throat is heard.

In every short frame the smooth envelope of the spectrum is found by cepstral liftering, stretched along frequency, and
put in place of what it was. That is a real gain per frequency, hence nothing runs on from frame to frame: a sample
depends on 2048 others, and pieces give what the whole gives. Applio does the same to its input, with stftPitchShift
2.0, whose frame, hop and interpolation these are; here the ends are reflected instead of faded, and nothing is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from rvc_batch.engine.filters import FLOAT32, ScratchSignal
from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.types import F64, I64

__all__ = ["UNSHIFTED", "FormantShift", "shift_to_file"]

FRAME, HOP = 1_024, 32  # Applio rvc/infer/pipeline.py @ b9c0ccb1
BINS = FRAME // 2 + 1
REACH = FRAME - HOP  # samples before a block that its first sample hears
PIECE = 1 << 15  # samples at once: 2 s, 1055 frames, 9 MB for each array of them
QUIETEST = 1e-12  # of a frequency: digital silence has a logarithm, too
WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)  # of analysis and of synthesis
OVERLAP = float(np.square(WINDOW).sum()) / HOP  # what a sample gets from all the frames that hold it


@dataclass(frozen=True)
class FormantShift:
    """How far, and what counts as an envelope.

    factor: of the frequencies of the formants, 1 leaves them. quefrency_ms: detail of the envelope; 1 to 2 ms, shorter
    than a period of the voice, else its harmonics count as formants.
    """

    factor: float = 1.0
    quefrency_ms: float = 1.0

    def of(self, wave: F64) -> F64:
        """Return a signal of 1024 + 32·n samples, shifted; the first and the last 992 lack frames."""
        frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP] * WINDOW
        spectra = fft.rfft(frames)
        spectra *= self._gain(np.abs(spectra))
        shifted = (fft.irfft(spectra) * (WINDOW / OVERLAP)).reshape(-1, FRAME // HOP, HOP)
        total = np.zeros((len(shifted) + FRAME // HOP - 1, HOP))
        for part in range(FRAME // HOP):
            total[part : part + len(shifted)] += shifted[:, part]
        return total.reshape(-1)

    def _gain(self, magnitudes: F64) -> F64:
        """Return the gain of each frequency of each frame, [F, 513]."""
        logarithms = np.log(np.maximum(magnitudes, QUIETEST))
        envelopes = np.exp(fft.rfft(fft.irfft(logarithms) * self._lifter).real)
        at, share, is_inside = self._stretched
        moved = (1 - share) * envelopes[:, at] + share * envelopes[:, at + 1]
        gain: F64 = np.where(is_inside, moved / envelopes, 0.0)
        gain[:, [0, -1]] = 0.0
        return gain

    @cached_property
    def _lifter(self) -> F64:
        """Weights of the cepstrum [1024] that keep the real, slow part of it."""
        quefrency = int(self.quefrency_ms * SAMPLE_RATE_16K / 1_000)
        weights = np.zeros(FRAME)
        weights[0], weights[1:quefrency], weights[quefrency] = 1.0, 2.0, 1.0
        return weights

    @cached_property
    def _stretched(self) -> tuple[I64, F64, NDArray[np.bool_]]:
        """Return where each frequency of the stretched envelope comes from: bin, share of the next, is there any."""
        position: F64 = np.arange(BINS, dtype=np.float64) * (BINS / int(BINS * self.factor))
        at = position.astype(np.int64)
        is_inside = at < BINS - 1
        return np.minimum(at, BINS - 2), position - at, is_inside


UNSHIFTED = FormantShift()


def shift_to_file(
    source: ScratchSignal, target: Path, shift: FormantShift, *, progress: Callable[[float], None] = lambda _: None
) -> tuple[ScratchSignal, float]:
    """Write `source` with its formants shifted into `target`; return that and its peak.

    progress: is told the share that is done after each piece; what it raises ends the shift.
    """
    peak = 0.0
    with target.open("wb") as out:
        for start in range(0, source.samples, PIECE):
            stop = min(start + PIECE, source.samples)
            frames = -(-(stop - start + REACH) // HOP)
            first = start - REACH
            shifted = shift.of(source.read(first, first + (frames - 1) * HOP + FRAME))[REACH : REACH + stop - start]
            peak = max(peak, float(np.abs(shifted).max()))
            out.write(shifted.astype(FLOAT32).tobytes())
            progress(stop / source.samples)
    return ScratchSignal(target, source.samples, FLOAT32), peak

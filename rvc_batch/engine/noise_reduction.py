"""Noise reduction of the finished signal by spectral gating, through noisereduce (the extra `clean`).

The library keeps a running mean of every frequency, two seconds long in both directions, and turns down what does not
stand out of it. It wants a signal whole; here it gets pieces with so much before and after that the mean has forgotten
the rest. It divides by that mean, so digital silence gets noise far below hearing. Applio does the same to its output,
in pieces with less around them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from rvc_batch.engine.excitation import source_noise
from rvc_batch.errors import ExtraMissing

if TYPE_CHECKING:
    from rvc_batch.engine.types import F32

__all__ = ["INSTALL_CLEAN", "check_noise_reduction", "reduced"]

INSTALL_CLEAN = "pip install noisereduce, or install rvc-batch with its extra: pip install '.[clean]'"
HOP = 256  # samples between two frames of the library: pieces begin where frames do
FRAME = 4 * HOP
PIECE_S, CONTEXT_S = 20.0, 20.0  # ten time constants of the mean
DITHER = np.float32(1e-8)  # 160 dB below full scale


def check_noise_reduction(strength: float) -> None:
    """Make sure that it can be done, before the work.

    Raises:
        ExtraMissing: noisereduce is not installed.
    """
    if strength and importlib.util.find_spec("noisereduce") is None:
        raise ExtraMissing(f"noise reduction needs noisereduce: {INSTALL_CLEAN}")


def reduced(blocks: Iterator[F32], sample_rate: int, strength: float) -> Iterator[F32]:
    """Yield a signal [n] of blocks with its noise turned down, in blocks of another size.

    strength: 0–1, the share of the noise that is taken away.
    """
    piece, context = (round(s * sample_rate / HOP) * HOP for s in (PIECE_S, CONTEXT_S))
    held, first, done, is_over = np.zeros(0, np.float32), 0, 0, False  # held begins at sample `first`
    while not is_over:
        while held.size < done - first + piece + context:
            block = next(blocks, None)
            if block is None:
                is_over = True
                break
            held = np.concatenate([held, block])
        stop = first + held.size if is_over else done + piece
        for start in range(done, stop, piece):
            last = min(start + piece, stop)
            low = max(start - context, first)
            treated = _treat(held[low - first : last + context - first], low, sample_rate, strength)
            yield treated[start - low : last - low]
        done = stop
        kept = max(done - context, 0)
        held, first = held[kept - first :], kept


def _treat(wave: F32, start: int, sample_rate: int, strength: float) -> F32:
    """Return a piece that begins at sample `start` of the signal, treated."""
    library = importlib.import_module("noisereduce")
    padding = max(-wave.size % HOP, FRAME - wave.size)  # what is left of a frame would come back silent
    heard = np.pad(wave, (0, padding))
    heard += DITHER * source_noise(0, start, heard.size)
    treated: F32 = library.reduce_noise(
        y=heard, sr=sample_rate, prop_decrease=strength, chunk_size=None, padding=0, n_jobs=1
    )
    return treated[: wave.size]

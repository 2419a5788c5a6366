"""The low-pass with which RefineGAN brings its source down to the rates of its stages: a windowed sinc.

Applio leaves this to torchaudio.functional.resample (sinc_interp_kaiser); its formula is here, from its documentation
and source @ 02d6815. Arrays only: both backends apply the same kernel.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from rvc_batch.engine.types import F32

LOBES = 64  # of the sinc on either side of a sample; the call in Applio's refinegan_legacy.py @ 4eace3d
ROLLOFF = 0.9475937167399596  # cutoff, of the Nyquist frequency of the lower rate
BETA = 14.769656459379492  # of the Kaiser window


def decimation_reach(rate: int) -> int:
    """Return how many samples before its own an output depends on; after it, it is `rate` − 1 more."""
    return 0 if rate == 1 else math.ceil(LOBES * rate / ROLLOFF)


@functools.cache
def decimation_kernel(rate: int) -> F32:
    """Return the taps [2 · reach + rate] whose product with samples j · rate − reach … is output j."""
    if rate == 1:
        return np.ones(1, np.float32)
    reach = decimation_reach(rate)
    t = np.clip(np.arange(-reach, reach + rate) / rate * ROLLOFF, -LOBES, LOBES)
    window = np.i0(BETA * np.sqrt(1 - (t / LOBES) ** 2)) / np.i0(BETA)
    kernel: F32 = (np.sinc(t) * window * ROLLOFF / rate).astype(np.float32)
    return kernel

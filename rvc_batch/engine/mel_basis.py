"""The mel filter bank and the window of the pitch network: plain numpy, shared by both backends.

RMVPE was trained on HTK mel bands with Slaney's area normalisation, a pairing that is librosa's `htk=True` and no
other common default. This file computes tables; it never looks at audio.
"""

from __future__ import annotations

import numpy as np

from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.types import F32, F64

N_FFT = 1024  # also the window length, in samples at 16 kHz
N_MELS = 128
MEL_LOW_HZ, MEL_HIGH_HZ = 30.0, 8000.0
LOG_FLOOR = 1e-5  # magnitudes below are raised to this before the logarithm


def mel_filter_bank() -> F32:
    """Return the filter bank [N_MELS, N_FFT // 2 + 1]: triangles even on the HTK scale, area 2 / width in Hz.

    Source: RVC infer/rmvpe.py @ 4338f12 (librosa.filters.mel with htk=True, norm "slaney").
    """
    bins_hz = np.arange(N_FFT // 2 + 1) * (SAMPLE_RATE_16K / N_FFT)
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(MEL_LOW_HZ), _hz_to_mel(MEL_HIGH_HZ), N_MELS + 2))
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    basis: F32 = (triangles * (2.0 / (high - low))).astype(np.float32)
    return basis


def hann_window() -> F32:
    """Return the periodic Hann window [N_FFT]."""
    n = np.arange(N_FFT)
    window: F32 = (0.5 - 0.5 * np.cos(2.0 * np.pi * n / N_FFT)).astype(np.float32)
    return window


def _hz_to_mel(hz: float) -> float:
    return 2595.0 * float(np.log10(1.0 + hz / 700.0))


def _mel_to_hz(mel: F64) -> F64:
    hz: F64 = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return hz

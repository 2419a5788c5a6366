"""The mel filter banks and the window of the pitch networks: plain numpy, shared by both backends.

RMVPE was trained on HTK mel bands with Slaney's area normalisation, a pairing that is librosa's `htk=True` and no
other common default; FCPE on librosa's defaults, Slaney's scale with his normalisation. This file computes tables; it
never looks at audio.
"""

from __future__ import annotations

import functools

import numpy as np

from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.types import F32, F64

N_FFT = 1024  # also the window length, in samples at 16 kHz
N_MELS = 128
MEL_LOW_HZ, MEL_HIGH_HZ = 30.0, 8000.0
LOG_FLOOR = 1e-5  # magnitudes below are raised to this before the logarithm


def mel_filter_bank() -> F32:
    """Return the filter bank of RMVPE [N_MELS, N_FFT // 2 + 1]: triangles even on the HTK scale, area 2 / width in Hz.

    Source: RVC infer/rmvpe.py @ 4338f12 (librosa.filters.mel with htk=True, norm "slaney").
    """
    return _triangles(_mel_to_hz(np.linspace(_hz_to_mel(MEL_LOW_HZ), _hz_to_mel(MEL_HIGH_HZ), N_MELS + 2)))


@functools.cache
def slaney_filter_bank(n_mels: int) -> F32:
    """Return the filter bank of FCPE [n_mels, N_FFT // 2 + 1]: triangles on Slaney's scale from 0 to 8000 Hz.

    The scale is linear up to 1000 Hz, in steps of 200/3 Hz, and logarithmic above: 27 steps to 6.4 times as much.
    Source: torchfcpe mel_extractor.py @ 0.0.4 (librosa.filters.mel with its defaults).
    """
    steps = np.linspace(0.0, 15.0 + 27.0 * float(np.log(MEL_HIGH_HZ / 1000.0) / np.log(6.4)), n_mels + 2)
    return _triangles(np.where(steps < 15.0, 200.0 / 3.0 * steps, 1000.0 * 6.4 ** ((steps - 15.0) / 27.0)))


def _triangles(edges_hz: F64) -> F32:
    """Return triangles of area 1 in Hz between every three of the edges, per bin of the spectrum."""
    bins_hz = np.arange(N_FFT // 2 + 1) * (SAMPLE_RATE_16K / N_FFT)
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

"""A source whose sine runs in step with the speech it is to become.

The source of inference has the f0 of the speech, not its phase. Trained on that, a generator is told how many pulses
there are but never where: losses must not look closely, pitch is learnt late, and a generator that places its pulses
by the frame grid instead is as good as one that listens. So training moves the sine to where the fundamental of the
speech is; then source and speech agree sample by sample, and any loss teaches the generator to follow its source.
At inference any phase will do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from rvc_batch.engine.excitation import SINE_AMPLITUDE, UNVOICED_NOISE, VOICED_NOISE
from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.types import PitchTrack

__all__ = ["aligned_source"]

F32 = NDArray[np.float32]
PERIODS = 3.0  # that the phase is averaged over: the other harmonics cancel, and slow drift is followed


def aligned_source(track: PitchTrack, wave: F32, noise: F32) -> F32:
    """Return sine plus noise [T · 160] as the engine makes it, but with the phase of the fundamental of `wave`.

    track: T frames · wave, noise: [T · 160] at 16 kHz, the noise standard normal.
    """
    f0 = np.repeat(track.f0.astype(np.float64), HOP_16K)
    is_voiced = f0 > 0
    if not is_voiced.any():
        return (UNVOICED_NOISE * noise).astype(np.float32)
    turning = np.exp(2j * np.pi * np.cumsum(f0) / SAMPLE_RATE_16K)
    window = np.hanning(round(PERIODS * SAMPLE_RATE_16K / np.median(f0[is_voiced])))
    offset = fftconvolve(np.where(is_voiced, wave, 0.0) * turning.conj(), window, mode="same")
    fundamental = turning * offset / np.maximum(np.abs(offset), 1e-9)
    sine = np.where(is_voiced, SINE_AMPLITUDE * fundamental.imag, 0.0)
    amplitude = np.where(is_voiced, VOICED_NOISE, UNVOICED_NOISE)
    return (sine + amplitude * noise).astype(np.float32)

"""Noise reduction of the finished signal by spectral gating: Applio's clean audio, as noisereduce 3.0 computes it.

A running mean is kept of every frequency, two seconds long in both directions, and what does not stand out of it is
turned down. Here a signal comes in pieces with so much before and after that the mean has forgotten the rest; of that
context only magnitudes are held. Digital silence, by whose mean one cannot divide, gets noise far below hearing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft
from scipy.signal import fftconvolve, filtfilt
from scipy.special import expit

from rvc_batch.engine.excitation import source_noise

if TYPE_CHECKING:
    from rvc_batch.engine.types import F32

__all__ = ["reduced"]

# the parameters of noisereduce 3.0.3 that Applio leaves as they are
HOP = 256  # samples between two frames: pieces begin where frames do
FRAME = 4 * HOP
BINS = FRAME // 2 + 1
MEAN_S = 2.0  # time constant of the mean
STANDS_OUT, SLOPE = 2.0, 10.0  # times the mean above the mean, and how suddenly
SMOOTH_HZ, SMOOTH_S = 500.0, 0.05  # of the mask

WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)
PIECE_S, CONTEXT_S = 20.0, 20.0  # ten time constants of the mean
FRAMES_AT_ONCE, BINS_AT_ONCE = 1_024, 57  # 9 · 57 = 513; each a few MB
DITHER = np.float32(1e-8)  # 160 dB below full scale


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
            heard = held[low - first : last + context - first]
            yield _treat(heard, low, slice(start - low, last - low), sample_rate, strength)
        done = stop
        kept = max(done - context, 0)
        held, first = held[kept - first :], kept


def _treat(wave: F32, start: int, kept: slice, sample_rate: int, strength: float) -> F32:
    """Return the samples `kept` of a piece that begins at sample `start` of the signal, treated."""
    padding = max(-wave.size % HOP, FRAME - wave.size)
    heard = np.pad(wave, (0, padding))
    heard += DITHER * source_noise(0, start, heard.size)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(heard, FRAME // 2), FRAME)[::HOP]
    # the frames that hold a sample of `kept`; frame 0 is centred at sample 0
    low, high = max(kept.start // HOP - 1, 0), min(-(-kept.stop // HOP) + 2, len(frames))
    gain = 1 - np.float32(strength) * (1 - _mask(_magnitudes(frames), low, high, sample_rate))
    treated, weights = np.zeros((2, high - low + FRAME // HOP - 1, HOP), np.float32)
    squared = np.square(WINDOW).reshape(-1, HOP)
    for at in range(low, high, FRAMES_AT_ONCE):
        some = frames[at : min(at + FRAMES_AT_ONCE, high)]
        spectra = fft.rfft(some * WINDOW) * gain[at - low : at - low + len(some)]
        parts = (fft.irfft(spectra) * WINDOW).reshape(len(some), -1, HOP)
        for part, share in enumerate(squared):
            places = slice(at - low + part, at - low + part + len(some))
            treated[places] += parts[:, part]
            weights[places] += share
    begin = kept.start - (low * HOP - FRAME // 2)
    inside = slice(begin, begin + kept.stop - kept.start)
    result: F32 = treated.reshape(-1)[inside] / weights.reshape(-1)[inside]
    return result


def _magnitudes(frames: F32) -> F32:
    """Return the magnitudes [T, 513] of frames [T, 1024]."""
    found = np.empty((len(frames), BINS), np.float32)
    for at in range(0, len(frames), FRAMES_AT_ONCE):
        found[at : at + FRAMES_AT_ONCE] = np.abs(fft.rfft(frames[at : at + FRAMES_AT_ONCE] * WINDOW))
    return found


def _mask(magnitudes: F32, low: int, high: int, sample_rate: int) -> F32:
    """Return what of each frequency of the frames low:high is more than noise, 0–1, [high - low, 513]."""
    reach_hz, reach_s = int(SMOOTH_HZ * (FRAME // 2) / sample_rate), int(SMOOTH_S * sample_rate / HOP)
    first, last = max(low - reach_s, 0), min(high + reach_s, len(magnitudes))
    t = MEAN_S * sample_rate / HOP
    share = (np.sqrt(1 + 4 * t**2) - 1) / (2 * t**2)  # of the present frame in the mean
    mask = np.empty((last - first, BINS), np.float32)
    for at in range(0, BINS, BINS_AT_ONCE):
        band = magnitudes[:, at : at + BINS_AT_ONCE].astype(np.float64)
        mean = filtfilt([share], [1.0, share - 1.0], band, axis=0, padtype=None)[first:last]
        mask[:, at : at + BINS_AT_ONCE] = expit((band[first:last] / mean - 1 - STANDS_OUT) * SLOPE)
    kernel = np.outer(_ramp(reach_s), _ramp(reach_hz))
    smooth: F32 = fftconvolve(mask, kernel / kernel.sum(), mode="same")[low - first : high - first].astype(np.float32)
    return smooth


def _ramp(reach: int) -> F32:
    """Return the weights of 2 · reach + 1 neighbours, rising and falling."""
    weights: F32 = (1 - np.abs(np.arange(-reach, reach + 1)) / (reach + 1)).astype(np.float32)
    return weights

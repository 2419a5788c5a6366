"""A pitch tracker for clean speech: normalised cross-correlation and a best path. It labels what the pitch network
learns from.

The speech of the recipe is free of noise, so a classical method names its pitch reliably; the network then learns
to do so in noise. Source of the method: Talkin 1995, "A robust algorithm for pitch tracking"; written anew, without
its two passes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K

__all__ = ["track_f0"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

LOW_HZ, HIGH_HZ = 55.0, 500.0
WINDOW = 400  # samples compared: 25 ms
CANDIDATES = 8  # peaks kept per frame
UNVOICED_COST = 0.75  # a peak of correlation 1 - this is as good as being unvoiced
SWITCH_COST = 0.3  # of starting or ending voice
JUMP_COST = 2.0  # per octave between frames
LAG_COST = 0.06  # per octave of lag beyond the strongest peak: of two equal peaks the shorter period is meant
QUIET = 1e-3  # root mean square below which nothing is voiced


def track_f0(wave: F32) -> F32:
    """Return f0 in Hz, 0 where unvoiced, [1 + N // 160] for [N] at 16 kHz; frame t is centred on sample 160·t."""
    lags, strength = _candidates(wave)
    best = _best_path(lags, strength)
    frames = np.arange(lags.shape[0])
    lag = np.where(best < 0, np.inf, lags[frames, best])
    f0: F32 = (SAMPLE_RATE_16K / lag).astype(np.float32)
    return f0


def _candidates(wave: F32) -> tuple[F64, F64]:
    """Return lags (samples, interpolated) and correlations of the strongest peaks, each [T, CANDIDATES]."""
    shortest, longest = int(SAMPLE_RATE_16K / HIGH_HZ), int(SAMPLE_RATE_16K / LOW_HZ) + 1
    frames = 1 + wave.size // HOP_16K
    reach = WINDOW + longest + 1
    padded = np.pad(wave.astype(np.float64), (reach, reach + HOP_16K))
    lags = np.full((frames, CANDIDATES), float(longest))
    strength = np.full((frames, CANDIDATES), -1.0)
    size = 1 << (2 * reach).bit_length()
    all_lags = np.arange(shortest - 1, longest + 2)
    for t in range(frames):
        # both windows lie symmetrically about the middle of the frame, whatever the lag
        middle = reach + t * HOP_16K
        stretch = padded[middle - reach : middle + reach]
        if np.sqrt(np.mean(stretch[reach - WINDOW // 2 : reach + WINDOW // 2] ** 2)) < QUIET:
            continue
        correlation = _correlation(stretch, all_lags, size)
        inner = correlation[1:-1]
        peaks = np.flatnonzero((inner >= correlation[:-2]) & (inner > correlation[2:])) + 1
        peaks = peaks[np.argsort(-correlation[peaks])[:CANDIDATES]]
        before, here, after = correlation[peaks - 1], correlation[peaks], correlation[peaks + 1]
        bend = before - 2 * here + after
        shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
        lags[t, : peaks.size] = all_lags[peaks] + shift
        strength[t, : peaks.size] = here
    return lags, strength


def _correlation(stretch: F64, lags: NDArray[np.int64], size: int) -> F64:
    """Return the normalised correlation of the middle with itself a lag earlier and a lag later, averaged."""
    start = stretch.size // 2 - WINDOW // 2
    window = stretch[start : start + WINDOW]
    spectrum = np.fft.rfft(stretch, size) * np.conj(np.fft.rfft(window, size))
    products = np.fft.irfft(spectrum, size)  # at p: the window against the stretch from p on
    energy = np.concatenate(([0.0], np.cumsum(stretch**2)))
    own = energy[start + WINDOW] - energy[start]
    total = np.zeros(lags.size)
    for places in (start - lags, start + lags):
        other = energy[places + WINDOW] - energy[places]
        total += products[places] / np.sqrt(own * other + 1e-9)
    return total / 2


def _best_path(lags: F64, strength: F64) -> NDArray[np.int64]:
    """Return the chosen candidate per frame, -1 where unvoiced (Viterbi)."""
    frames = lags.shape[0]
    octaves = np.log2(lags)
    strongest = np.take_along_axis(octaves, strength.argmax(axis=1)[:, None], axis=1)
    local = 1.0 - strength + LAG_COST * (octaves - strongest)
    cost = np.append(local[0], UNVOICED_COST)
    back = np.zeros((frames, CANDIDATES + 1), np.int64)
    for t in range(1, frames):
        move = np.full((CANDIDATES + 1, CANDIDATES + 1), SWITCH_COST)  # [from, to]
        move[:-1, :-1] = JUMP_COST * np.abs(octaves[t - 1][:, None] - octaves[t][None])
        move[-1, -1] = 0.0
        total = cost[:, None] + move
        back[t] = total.argmin(axis=0)
        cost = total.min(axis=0) + np.append(local[t], UNVOICED_COST)
    path = np.zeros(frames, np.int64)
    path[-1] = int(cost.argmin())
    for t in range(frames - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return np.where(path == CANDIDATES, -1, path)

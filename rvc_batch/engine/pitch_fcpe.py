"""FCPE over a long signal: tiles of any size, the result of one pass over the whole.

Its one layer without a finite reach is a group norm over the whole time. So the signal is gone through twice: first the
statistics, from a cheap convolution, added up in float64; then the network, in tiles with the computed reach as halo.
Mel frame k is centred on sample 160 · k + 80, and the last one is heard twice, as upstream has it.
Source: torchfcpe models.py, models_infer.py, mel_extractor.py @ 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.mel_basis import N_FFT
from rvc_batch.engine.network_config import FCPE_GROUPS, HOP_16K, FcpeConfig
from rvc_batch.engine.pitch import CENTS_PER_OCTAVE, REACH_BINS, REFERENCE_HZ
from rvc_batch.engine.pitch_windows import PaddedSignal
from rvc_batch.engine.tiling import Halo, tiles
from rvc_batch.engine.types import F32, PitchTrack

BEFORE = (N_FFT - HOP_16K) // 2  # samples of a mel frame before the 160 that it stands for, and as many after them
STEM_REACH = 1  # frames, of a kernel of three


def reach(config: FcpeConfig) -> int:
    """Return how many stem frames before and after it a frame of salience depends on."""
    return 1 + config.n_layers * (config.kernel // 2)


def fcpe_salience_blocks(backend: Backend, signal: PaddedSignal, tile_frames: int) -> Iterator[F32]:
    """Yield salience [n, bins] of consecutive frames, 1 + samples // 160 in all; tile_frames: kept per tile."""
    total = 1 + signal.samples // HOP_16K
    mean, variance = _statistics(backend, signal, total, tile_frames)
    halo = reach(backend.fcpe_config())
    for tile in tiles(0, total, total, tile_frames, Halo(halo, halo)):
        stem = _stem(backend, signal, tile.first, tile.last, total)
        found = backend.fcpe_salience(stem, mean, variance)
        yield found[tile.keep_first - tile.first : tile.keep_last - tile.first]


def decode_fcpe(salience: F32, threshold: float, config: FcpeConfig) -> PitchTrack:
    """Turn salience [T, bins] in 0–1 into f0 in Hz.

    The weighted mean of the cents of nine bins around the first maximum. Beyond the range the outermost bin stands in
    for each that is missing. A frame whose maximum does not exceed `threshold` is unvoiced.
    """
    low, high = (CENTS_PER_OCTAVE * np.log2(hz / REFERENCE_HZ) for hz in (config.f0_min, config.f0_max))
    cents = np.linspace(low, high, config.n_bins)
    bins = salience.argmax(axis=1)[:, None] + np.arange(-REACH_BINS, REACH_BINS + 1)
    bins = bins.clip(0, config.n_bins - 1)
    weight = np.take_along_axis(salience, bins, axis=1).astype(np.float64)
    total = weight.sum(axis=1)
    mean = (weight * cents[bins]).sum(axis=1) / np.where(total > 0, total, 1.0)
    is_voiced = salience.max(axis=1, initial=0.0) > threshold
    return PitchTrack(np.where(is_voiced, REFERENCE_HZ * 2.0 ** (mean / CENTS_PER_OCTAVE), 0.0).astype(np.float32))


def _statistics(backend: Backend, signal: PaddedSignal, total: int, tile_frames: int) -> tuple[F32, F32]:
    """Return mean and variance of each group of stem channels over the whole signal, [G] float32 each."""
    sums = np.zeros((2, FCPE_GROUPS))
    for first in range(0, total, tile_frames):
        stem = _stem(backend, signal, first, min(first + tile_frames, total), total)
        groups = stem.reshape(stem.shape[0], FCPE_GROUPS, -1).astype(np.float64)
        sums += groups.sum(axis=(0, 2)), np.square(groups).sum(axis=(0, 2))
    count = total * groups.shape[2]
    mean = sums[0] / count
    return mean.astype(np.float32), (sums[1] / count - np.square(mean)).astype(np.float32)


def _stem(backend: Backend, signal: PaddedSignal, first: int, last: int, total: int) -> F32:
    """Return stem frames first:last; away from the ends of the signal they come with a margin that is dropped."""
    low, high = max(first - STEM_REACH, 0), min(last + STEM_REACH, total)
    return backend.fcpe_stem(_mel(backend, signal, low, high, total))[first - low : last - low]


def _mel(backend: Backend, signal: PaddedSignal, first: int, last: int, total: int) -> F32:
    """Return log-mel frames first:last; frame total - 1 is the one before it."""
    is_end = last == total
    first, last = (min(first, total - 2), total - 1) if is_end else (first, last)
    begin, end = first * HOP_16K - BEFORE, last * HOP_16K + BEFORE
    wave = signal.read(max(begin, 0), min(end, signal.samples)).astype(np.float32)
    wave = np.pad(wave, (max(-begin, 0), max(end - signal.samples, 0)), mode="reflect")
    mel = backend.fcpe_log_mel(wave)
    return np.concatenate([mel, mel[-1:]]) if is_end else mel

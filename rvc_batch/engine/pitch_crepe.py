"""CREPE over a signal of any length: batches of frames through the network, then the most likely path of each batch.

Upstream asks for 512 frames at a time and finds a path through each batch alone. Batches counted from the start of the
signal therefore give its result in memory that does not grow. Two things differ: it adds random cents to every frame,
up to a bin either way, to hide that f0 comes in steps of 20 cents; here f0 is that of the bin, and equal for equal
input. And voicing may take another threshold than its 0.1.
Source: RVC infer/vc/pipeline.py get_f0 @ 9f2f055; torchcrepe core.py, decode.py, filter.py @ 0.0.24.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.network_config import CREPE_FRAME, HOP_16K
from rvc_batch.engine.pitch import CENTS_OF_BIN_0, CENTS_PER_BIN, CENTS_PER_OCTAVE, N_BINS, REFERENCE_HZ
from rvc_batch.engine.pitch_windows import PaddedSignal
from rvc_batch.engine.types import F0_MAX_HZ, F0_MIN_HZ, F32, F64, I64

BATCH_FRAMES = 512
SILENT_DEVIATION = 1e-10  # a frame is divided by no less
STEP_BINS = 12  # a path moves by less from frame to frame, and the less the likelier
NEVER = float(np.log(np.finfo(np.float32).tiny))  # the log likelihood of any other step


def crepe_f0_blocks(backend: Backend, method: str, signal: PaddedSignal, threshold: float) -> Iterator[F32]:
    """Yield f0 [n] of consecutive frames, 1 + samples // 160 in all; voiced where the smoothed salience of the path
    reaches `threshold`.

    method: "crepe" or "crepe-tiny", which must be loaded.
    """
    yield from smoothed(_paths(backend, method, signal), threshold)


def _paths(backend: Backend, method: str, signal: PaddedSignal) -> Iterator[tuple[F64, F64]]:
    """Yield f0 in Hz and salience along the path of each batch."""
    n_frames = 1 + signal.samples // HOP_16K
    for first in range(0, n_frames, BATCH_FRAMES):
        frames = _frames(signal, first, min(first + BATCH_FRAMES, n_frames))
        salience = backend.crepe_salience(method, frames)
        bins = likeliest_path(salience)
        cents = CENTS_OF_BIN_0 + CENTS_PER_BIN * bins
        f0 = (REFERENCE_HZ * 2.0 ** (cents / CENTS_PER_OCTAVE)).astype(np.float64)
        yield f0, salience[np.arange(bins.size), bins].astype(np.float64)


def _frames(signal: PaddedSignal, first: int, last: int) -> F32:
    """Return frames [last - first, 1024] around every 160th sample, mean 0 and deviation 1; zeros beyond the ends."""
    begin, end = first * HOP_16K - CREPE_FRAME // 2, (last - 1) * HOP_16K + CREPE_FRAME // 2
    wave = signal.read(max(begin, 0), min(end, signal.samples)).astype(np.float32)
    wave = np.pad(wave, (max(-begin, 0), max(end - signal.samples, 0)))
    windows = sliding_window_view(wave, CREPE_FRAME)[::HOP_16K]
    frames: F32 = windows - windows.mean(axis=1, keepdims=True)
    frames /= np.maximum(frames.std(axis=1, ddof=1, keepdims=True), np.float32(SILENT_DEVIATION))
    return frames


def likeliest_path(salience: F32) -> I64:
    """Return the bin of each frame, [T], on the likeliest path through salience [T, 360] between 50 and 1100 Hz.

    Bins are as likely as the softmax of the salience; a step of d bins as 12 - d, and 12 bins or more as good as never.
    Source: Viterbi 1967; librosa sequence.viterbi, which torchcrepe calls.
    """
    observed = _log_likelihood(salience)
    steps = _log_steps()
    states = np.arange(N_BINS)
    padded = np.full(N_BINS + 2 * (STEP_BINS - 1), -np.inf)
    around = sliding_window_view(padded, 2 * STEP_BINS - 1)
    came_from = np.empty(observed.shape, np.int16)
    value = observed[0].astype(np.float64)
    for t in range(1, observed.shape[0]):
        padded[STEP_BINS - 1 : 1 - STEP_BINS] = value
        reached = around + steps
        nearest = reached.argmax(axis=1)
        near = reached[states, nearest]
        anywhere = int(value.argmax())
        far = value[anywhere] + NEVER
        came_from[t] = np.where(far > near, anywhere, states + nearest - (STEP_BINS - 1))
        value = observed[t] + np.maximum(near, far)
    path = np.empty(observed.shape[0], np.int64)
    path[-1] = value.argmax()
    for t in range(observed.shape[0] - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def _log_likelihood(salience: F32) -> F32:
    """Return the log of the softmax over the bins between 50 and 1100 Hz, [T, 360]; all others have next to none."""
    low, high = ((CENTS_PER_OCTAVE * np.log2(hz / REFERENCE_HZ) - CENTS_OF_BIN_0) for hz in (F0_MIN_HZ, F0_MAX_HZ))
    first, last = int(np.floor(low / CENTS_PER_BIN)), int(np.ceil(high / CENTS_PER_BIN))
    likelihood = np.zeros(salience.shape, np.float32)
    inside = salience[:, first:last]
    likelihood[:, first:last] = np.exp(inside - inside.max(axis=1, keepdims=True))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    found: F32 = np.log(likelihood + np.finfo(np.float32).tiny)
    return found


@functools.cache
def _log_steps() -> F64:
    """Return the log likelihood of coming to each bin from the 11 below, itself and the 11 above, [360, 23]."""
    offsets = np.arange(1 - STEP_BINS, STEP_BINS)
    origin = np.arange(N_BINS)[:, None] + offsets
    weight = STEP_BINS - np.abs(offsets)
    # out of each bin the likelihoods add up to one, also where the range ends
    sums = np.array([(STEP_BINS - abs(np.arange(N_BINS) - i)).clip(0).sum() for i in range(N_BINS)])
    inside = (origin >= 0) & (origin < N_BINS)
    steps = np.where(inside, weight / sums[origin.clip(0, N_BINS - 1)], 1.0)
    found: F64 = np.where(inside, np.log(steps + np.finfo(np.float32).tiny), -np.inf)
    return found


def smoothed(blocks: Iterator[tuple[F64, F64]], threshold: float) -> Iterator[F32]:
    """Average f0 over three frames, take the median of three of the salience, and compare that with the threshold.

    At the ends of the signal there are two: their mean, and the lesser of them.
    """
    f0, salience = np.zeros(0), np.zeros(0)  # what is not told yet, with the frame before it
    is_start = True
    for more_f0, more_salience in blocks:
        f0, salience = np.concatenate([f0, more_f0]), np.concatenate([salience, more_salience])
        if f0.size > 2:
            yield _voiced(f0, salience, threshold)[0 if is_start else 1 : -1]
            f0, salience, is_start = f0[-2:], salience[-2:], False
    yield _voiced(f0, salience, threshold)[0 if is_start else 1 :]


def _voiced(f0: F64, salience: F64, threshold: float) -> F32:
    """Return f0 [T], 0 where unvoiced, taking both ends for those of the signal."""
    spare = np.pad(np.stack([np.ones_like(f0), f0]), ((0, 0), (1, 1)))
    count, total = spare[:, :-2] + spare[:, 1:-1] + spare[:, 2:]
    around = np.pad(salience, 1, constant_values=-np.inf)
    # of the ends, where one is missing, the lesser of two is the middle of three
    middle = np.median(np.stack([around[:-2], around[1:-1], around[2:]]), axis=0)
    return np.where(middle >= threshold, total / count, 0.0).astype(np.float32)

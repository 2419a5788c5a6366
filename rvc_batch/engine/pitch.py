"""From salience to the pitch a synthesiser wants: decode, fill gaps, transpose.

The coarse pitch code lives on `PitchTrack`. Source: RVC infer/rmvpe.py and infer/vc/pipeline.py @ 4338f12.
"""

from __future__ import annotations

import numpy as np

from rvc_batch.engine.types import F32, PitchTrack

N_BINS = 360
CENTS_OF_BIN_0 = 1997.3794084376191  # 31.7 Hz above the 10 Hz reference
CENTS_PER_BIN = 20.0
CENTS_PER_OCTAVE = 1200.0
REFERENCE_HZ = 10.0
REACH_BINS = 4  # the weighted mean spans the maximum and four bins on each side
VOICING_THRESHOLD = 0.03


def decode_salience(salience: F32, threshold: float = VOICING_THRESHOLD) -> PitchTrack:
    """Turn salience [T, 360] in 0–1 into f0 in Hz.

    The weighted mean of the cents of nine bins around the first maximum; bins outside the range weigh nothing. A
    frame whose maximum does not exceed `threshold` is unvoiced.
    """
    n_frames = salience.shape[0]
    centre = salience.argmax(axis=1)
    bins = centre[:, None] + np.arange(-REACH_BINS, REACH_BINS + 1)
    inside = (bins >= 0) & (bins < N_BINS)
    weight = np.where(inside, salience[np.arange(n_frames)[:, None], bins.clip(0, N_BINS - 1)], 0.0)
    cents = np.where(inside, CENTS_OF_BIN_0 + CENTS_PER_BIN * bins, 0.0)
    total = weight.sum(axis=1)
    mean = (weight * cents).sum(axis=1) / np.where(total > 0, total, 1.0)
    f0 = REFERENCE_HZ * 2.0 ** (mean / 1200.0)
    is_voiced = salience.max(axis=1, initial=0.0) > threshold
    return PitchTrack(np.where(is_voiced, f0, 0.0).astype(np.float32))


def fill_unvoiced(pitch: PitchTrack) -> PitchTrack:
    """Interpolate f0 linearly through unvoiced frames; the ends take the nearest voiced value.

    A track without a voiced frame stays as it is.
    """
    voiced = np.flatnonzero(pitch.f0 > 0)
    if voiced.size == 0:
        return pitch
    filled = np.interp(np.arange(pitch.frames), voiced, pitch.f0[voiced])
    return PitchTrack(filled.astype(np.float32))


def transpose(pitch: PitchTrack, semitones: float) -> PitchTrack:
    """Shift voiced frames by `semitones`; unvoiced frames stay 0."""
    return PitchTrack((pitch.f0 * 2.0 ** (semitones / 12.0)).astype(np.float32))

"""From 50 content frames per second to the 100 the synthesiser wants, with protection of unvoiced frames.

Source: RVC infer/vc/pipeline.py Pipeline.vc @ 4338f12.
"""

from __future__ import annotations

import numpy as np

from rvc_batch.engine.types import F32, ContentFeatures, PitchTrack

PROTECT_OFF = 0.5


def align(
    mixed: ContentFeatures, raw: ContentFeatures, pitch: PitchTrack | None, *, n_frames: int, share: float
) -> F32:
    """Return what the synthesiser hears: [n_frames, D] at 100 fps, unvoiced frames protected.

    Args:
        mixed: features after retrieval. raw: before it. pitch: the same frames, None for voices without f0.
        share: what retrieval may keep in unvoiced frames, 0–0.5.
    """
    content = to_frame_rate(mixed)[:n_frames]
    if pitch is None:
        return content
    return protect(content, to_frame_rate(raw)[:n_frames], pitch, share)


def to_frame_rate(features: ContentFeatures) -> F32:
    """Repeat each 20 ms frame: [T50, D] → [2·T50, D]."""
    doubled: F32 = np.repeat(features.data, 2, axis=0)
    return doubled


def protect(mixed: F32, raw: F32, pitch: PitchTrack, share: float) -> F32:
    """Give unvoiced frames back most of what retrieval took: share · mixed + (1 − share) · raw.

    Voiced frames (f0 ≥ 1 Hz) keep `mixed`; at a share of 0.5 and above nothing is protected.

    Args:
        mixed: [T, D] features after retrieval. raw: [T, D] before it. pitch: T frames.
        share: 0–0.5.
    """
    if share >= PROTECT_OFF:
        return mixed
    keep = np.where(pitch.f0 < 1, np.float32(share), np.float32(1))[:, None]
    blended: F32 = (mixed * keep + raw * (1 - keep)).astype(np.float32)
    return blended

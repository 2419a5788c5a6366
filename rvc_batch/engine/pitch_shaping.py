"""What is done to a measured f0 before a synthesiser gets it, whichever method measured it.

    smooth → key → (dialect: fill unvoiced frames) → transpose → autotune → what an f0 file says

Every step sees the whole file, so none depends on segments, windows or tiles. The transposition comes before the scale:
notes are to be in the scale where they are heard. The other way round a transposition would lead out of it again, and
one by a part of a semitone out of any scale. Unvoiced frames are 0 and stay 0 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rvc_batch.engine.pitch import fill_unvoiced, transpose
from rvc_batch.engine.scales import pitch_classes
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import I64, PitchTrack

MAX_KEY = 12  # semitones up or down
A4_HZ, A4_NOTE = 440.0, 69  # equal temperament; notes are numbered as in MIDI
NOTE_RANGE = (0, 140)  # 8 Hz to 27 kHz: beyond all f0
BLOCK_FRAMES = 8_192  # whose windows are gathered at once


@dataclass(frozen=True)
class ShapedPitch:
    """f0 as the synthesiser gets it, and the semitones that `auto_key` added to the transposition."""

    pitch: PitchTrack
    auto_key: int


def shape_pitch(
    measured: PitchTrack, settings: ConversionSettings, *, context: int, fills_unvoiced: bool
) -> ShapedPitch:
    """Apply what the settings ask for, up to autotune.

    Args:
        measured: f0 of a whole file with `context` frames of reflected signal on both sides.
        fills_unvoiced: whether the dialect interpolates through unvoiced frames.
    """
    pitch = smooth(measured, settings.f0_smoothing)
    inside = pitch.cut(context, pitch.frames - context)
    key = proposed_key(inside, settings.auto_key) if settings.auto_key else 0
    if fills_unvoiced:
        pitch = fill_unvoiced(pitch)
    pitch = transpose(pitch, settings.transpose + key)
    if settings.autotune:
        pitch = snap(pitch, pitch_classes(settings.autotune_scale), settings.autotune)
    return ShapedPitch(pitch, key)


def proposed_key(pitch: PitchTrack, target_hz: float) -> int:
    """Return the whole semitones, at most an octave, that bring the median of the voiced f0 nearest to `target_hz`.

    0 for a track without a voiced frame.
    """
    voiced = pitch.f0[pitch.is_voiced()]
    if voiced.size == 0:
        return 0
    semitones = 12 * np.log2(target_hz / float(np.median(voiced)))
    return int(np.clip(np.rint(semitones), -MAX_KEY, MAX_KEY))


def snap(pitch: PitchTrack, classes: tuple[int, ...], strength: float) -> PitchTrack:
    """Move voiced frames towards the nearest note of a scale, by the share `strength` (0–1) of the way in semitones.

    classes: the notes of the scale, 0–11 above C. Half way between two notes the lower one counts.
    """
    notes = np.array([n for n in range(*NOTE_RANGE) if n % 12 in classes], np.float64)
    is_voiced = pitch.is_voiced()
    played = A4_NOTE + 12 * np.log2(pitch.f0[is_voiced].astype(np.float64) / A4_HZ)
    borders = (notes[1:] + notes[:-1]) / 2
    nearest = notes[np.searchsorted(borders, played, side="left")]
    f0 = np.zeros(pitch.frames, np.float32)
    f0[is_voiced] = A4_HZ * 2.0 ** ((played + strength * (nearest - played) - A4_NOTE) / 12)
    return PitchTrack(f0)


def smooth(pitch: PitchTrack, frames: int) -> PitchTrack:
    """Take the median of `frames` (odd, 0 = none) neighbours inside each run of voiced frames.

    Towards the ends of a run the window shrinks on both sides alike, to the frame itself at its first and last: what
    comes out was always measured, and voicing never changes.
    """
    if frames <= 1:
        return pitch
    reach = np.minimum(_frames_to_border(pitch), frames // 2)
    f0 = pitch.f0.copy()
    for half in range(1, frames // 2 + 1):
        at = np.flatnonzero(reach == half)
        for start in range(0, at.size, BLOCK_FRAMES):
            block = at[start : start + BLOCK_FRAMES]
            f0[block] = np.median(pitch.f0[block[:, None] + np.arange(-half, half + 1)], axis=1)
    return PitchTrack(f0)


def _frames_to_border(pitch: PitchTrack) -> I64:
    """Return how many voiced frames lie without a gap on either side of each frame, the lesser of both, [T]."""
    is_voiced = pitch.is_voiced()
    index = np.arange(pitch.frames)
    unvoiced_before = np.maximum.accumulate(np.where(is_voiced, -1, index))
    unvoiced_after = np.minimum.accumulate(np.where(is_voiced, pitch.frames, index)[::-1])[::-1]
    distance: I64 = np.minimum(index - unvoiced_before, unvoiced_after - index) - 1
    return np.maximum(distance, 0)

"""Musical scales by name. No numpy in here: settings are checked by processes that load as little as they can."""

from __future__ import annotations

import re

from rvc_batch.errors import SettingsInvalid

CHROMATIC = "chromatic"
NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}  # semitones above C
ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
STEPS = {  # semitones above the tonic
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
}


def pitch_classes(scale: str) -> tuple[int, ...]:
    """Return which of the twelve notes belong to a scale, as ascending semitones above C, 0–11.

    Args:
        scale: "chromatic", or tonic and kind such as "C major", "F# minor", "Bb minor pentatonic".

    Raises:
        SettingsInvalid: no such scale.
    """
    if scale == CHROMATIC:
        return tuple(range(12))
    found = re.fullmatch(rf"([A-G])([{''.join(ACCIDENTALS)}]?) ({'|'.join(STEPS)})", scale)
    if found is None:
        raise SettingsInvalid(
            f"autotune_scale is {scale!r}, expected {CHROMATIC!r}, or a note and one of {', '.join(STEPS)}, such as "
            "'C major' or 'F# minor'"
        )
    tonic = NOTES[found[1]] + ACCIDENTALS[found[2]]
    return tuple(sorted((tonic + step) % 12 for step in STEPS[found[3]]))

"""One spoken sentence with its phones: a call of flite, which says when each phone ends.

flite is run as a program; nothing of it is linked. What it says is deterministic.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

__all__ = ["PHONES", "RATE_HZ", "SILENCE", "FliteMissing", "SpeechFailed", "Spoken", "Style", "speak"]

RATE_HZ = 16_000
SILENCE = "pau"
# the phones that flite's American voices use, silence first
_NAMES = "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
PHONES = (SILENCE, *_NAMES.split(" "))
KAL_F0_HZ = 105.0  # what the diphone voice calls its mean; it takes Hz where the others take a factor

_PHONE = re.compile(r"(\S+?):([0-9.]+)")


class SpeechFailed(RuntimeError):
    """flite did not say the sentence in one piece."""


class FliteMissing(RuntimeError):
    """flite is not there, so no sentence can be read."""


@dataclass(frozen=True)
class Style:
    """How a sentence is read. stretch: factor on durations · f0_factor: on the voice's own f0."""

    stretch: float = 1.0
    f0_factor: float = 1.0


@dataclass(frozen=True)
class Spoken:
    """A sentence in one voice.

    wave: [N] int16 at 16 kHz · phones: [P] places in PHONES · ends: [P] seconds at which each ends, rising.
    """

    wave: NDArray[np.int16]
    phones: NDArray[np.int16]
    ends: NDArray[np.float32]


def speak(voice: str, text: str, style: Style) -> Spoken:
    """Let one of flite's voices read one sentence.

    Raises:
        FliteMissing: flite is not installed.
        SpeechFailed: flite ends with an error, splits the text, or uses a phone that is not in PHONES.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "spoken.wav"
        command = ["flite", "-voice", voice, "-psdur", "--setf", f"duration_stretch={style.stretch:.4f}"]
        command += ["--setf", f"f0_shift={style.f0_factor:.4f}"]
        if voice.startswith("kal"):
            command += ["--setf", f"int_f0_target_mean={KAL_F0_HZ * style.f0_factor:.3f}"]
        try:
            done = subprocess.run(
                [*command, "-o", str(target), "-t", text], capture_output=True, text=True, check=False
            )
        except FileNotFoundError as e:
            raise FliteMissing("flite is not installed; on Debian: apt-get install flite") from e
        if done.returncode or not target.is_file():
            raise SpeechFailed(f"flite -voice {voice} ended with {done.returncode}: {done.stderr.strip()[:200]}")
        wave, rate = soundfile.read(target, dtype="int16")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if rate != RATE_HZ or len(lines) != 1:
        raise SpeechFailed(f"{voice} read {text!r} in {len(lines)} parts at {rate} Hz, expected one at {RATE_HZ} Hz")
    names, times = zip(*_PHONE.findall(lines[0]), strict=True)
    if unknown := sorted(set(names) - set(PHONES)):
        raise SpeechFailed(f"{voice} reads {text!r} with the phones {unknown}, which are not in the list")
    phones = np.array([PHONES.index(name) for name in names], np.int16)
    return Spoken(wave, phones, np.array(times, np.float32))

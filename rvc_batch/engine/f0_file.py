"""f0 as a text file: lines of time in seconds and f0 in Hz, as `rvc-batch pitch` writes and RVC reads.

    time_s,f0_hz        (optional)
    0.00,0.000
    0.01,220.123

A file is a curve over its own span of time: it replaces what was measured and shaped there, in absolute Hz. Between two
voiced rows the curve is linear, so a few rows are enough to draw one; between a voiced and an unvoiced row (0 Hz) a
frame takes the nearer one. Source: RVC infer/vc/pipeline.py get_f0 @ 9f2f055, which counts the times from the file's
first row instead of from the beginning of the audio, and breaks beyond 327 s.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine.network_config import FRAME_RATE_HZ
from rvc_batch.engine.types import F64, PitchTrack
from rvc_batch.errors import SettingsInvalid

HEADER = "time_s,f0_hz"
RANGE_HZ = (20.0, 4_000.0)
SAME_TIME_S = 1e-6  # less than what the decimal form of a time can be wrong by


@dataclass(frozen=True)
class F0Curve:
    """times_s: [R] ascending, from the beginning of the audio. f0_hz: [R], 0 = unvoiced."""

    name: str
    times_s: F64
    f0_hz: F64

    @property
    def sha256(self) -> str:
        """Return a hash of the rows."""
        return hashlib.sha256(self.times_s.tobytes() + self.f0_hz.tobytes()).hexdigest()

    @property
    def end_s(self) -> float:
        """Return the time of the last row."""
        return float(self.times_s[-1])

    def laid_over(self, pitch: PitchTrack, context: int) -> PitchTrack:
        """Return `pitch` replaced within the span of the curve; its frame `context` is the beginning of the audio."""
        first = math.ceil((float(self.times_s[0]) - SAME_TIME_S) * FRAME_RATE_HZ)
        last = math.floor((self.end_s + SAME_TIME_S) * FRAME_RATE_HZ)
        last = min(last, pitch.frames - context - 1)
        if last < first:
            return pitch
        f0 = pitch.f0.copy()
        f0[context + first : context + last + 1] = self._at(np.arange(first, last + 1) / FRAME_RATE_HZ)
        return PitchTrack(f0)

    def _at(self, times_s: F64) -> F64:
        """Return f0 at times within the span."""
        if self.times_s.size == 1:
            return np.full(times_s.size, self.f0_hz[0])
        row = np.clip(np.searchsorted(self.times_s, times_s, side="right") - 1, 0, self.times_s.size - 2)
        share = (times_s - self.times_s[row]) / (self.times_s[row + 1] - self.times_s[row])
        left, right = self.f0_hz[row], self.f0_hz[row + 1]
        is_line = (left > 0) & (right > 0)
        found: F64 = np.where(is_line, left + np.clip(share, 0, 1) * (right - left), np.where(share < 0.5, left, right))
        return found


def format_f0(pitch: PitchTrack) -> str:
    """Return the text of a track, a row per frame."""
    rows = (f"{frame / FRAME_RATE_HZ:.2f},{hz:.3f}\n" for frame, hz in enumerate(pitch.f0))
    return f"{HEADER}\n" + "".join(rows)


def read_f0_file(path: Path) -> F0Curve:
    """Read a curve.

    Raises:
        SettingsInvalid: it cannot be read, holds no row, or a row is not a time later than the one before and a
            frequency; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise SettingsInvalid(f"f0 file {path} cannot be read: {reason}; expected lines of time in s and Hz") from e
    times: list[float] = []
    values: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (not times and line.replace(" ", "").lower() == HEADER):
            continue
        time_s, hz = _row(f"f0 file {path}:{number}", line)
        if times and time_s <= times[-1]:
            raise SettingsInvalid(f"f0 file {path}:{number}: {time_s:g} s does not come after {times[-1]:g} s")
        times.append(time_s)
        values.append(hz)
    if not times:
        raise SettingsInvalid(f"f0 file {path} holds no row; expected lines such as '0.01,220.1'")
    return F0Curve(path.name, np.array(times), np.array(values))


def _row(where: str, line: str) -> tuple[float, float]:
    try:
        time_s, hz = map(float, line.split(","))
    except ValueError as e:
        raise SettingsInvalid(f"{where}: {line[:40]!r} is not time in s and f0 in Hz, such as '0.01,220.1'") from e
    low, high = RANGE_HZ
    if not (math.isfinite(time_s) and time_s >= 0):
        raise SettingsInvalid(f"{where}: the time is {time_s:g}, expected seconds from the beginning of the audio")
    if hz != 0 and not low <= hz <= high:
        raise SettingsInvalid(f"{where}: f0 is {hz:g} Hz, expected 0 for unvoiced, or {low:g} to {high:g}")
    return time_s, hz

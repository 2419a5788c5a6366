"""One conversion, before and after: mel of input and output, f0, loudness, and where the segments meet."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rvc_batch.engine.audio_io import decode_to_scratch
from rvc_batch.engine.filters import ScratchSignal
from rvc_batch.engine.mel_basis import mel_filter_bank
from rvc_batch.engine.network_config import FRAME_RATE_HZ, SAMPLE_RATE_16K
from rvc_batch.engine.types import F64, PitchTrack
from rvc_batch.plots.figure import drawn

WINDOW = 1024
FLOOR_DB = -80.0
COLUMNS = 2000  # a wider picture shows no more of a long file
F0_RANGE_HZ = (40, 1200)


@dataclass(frozen=True)
class Levels:
    """What is drawn of one file: `mel_db` [columns, 128] below the loudest, `rms_db` [columns] of full scale."""

    seconds: float
    mel_db: F64
    rms_db: F64


@dataclass(frozen=True)
class Side:
    """One end of a conversion."""

    title: str
    path: Path
    pitch: PitchTrack


def draw_conversion(before: Side, after: Side, borders_s: tuple[float, ...], picture: Path) -> None:
    """Draw both ends of a conversion into a PNG.

    Args:
        borders_s: where segments meet, in seconds.

    Raises:
        ExtraMissing: matplotlib is not installed. InputError: a file cannot be decoded.
    """
    with drawn(picture, rows=4, height=11) as (_, axes):
        mels, (pitch, loudness) = axes[:2], axes[2:]
        for side, mel, colour in zip((before, after), mels, ("tab:gray", "tab:blue"), strict=True):
            levels = measure(side.path)
            _draw_mel(mel, side.title, levels)
            _draw_pitch(pitch, side, colour)
            times = np.linspace(0, levels.seconds, levels.rms_db.size)
            loudness.plot(times, levels.rms_db, linewidth=0.8, color=colour, label=side.title)
        pitch.set(ylabel="f0 in Hz", yscale="log", ylim=F0_RANGE_HZ)
        loudness.set(ylabel="loudness, dB", xlabel="seconds", ylim=(FLOOR_DB, 0))
        for axis in axes:
            for border in borders_s:
                axis.axvline(border, color="tab:red", linewidth=0.8, linestyle="--")
        for axis in (pitch, loudness):
            axis.legend(loc="upper right")
        mels[0].set_xlim(0, None)


def draw_mels(files: Sequence[tuple[str, Path]], picture: Path) -> None:
    """Draw the mel of several files, each with a title, one below the other into a PNG.

    Raises:
        as `draw_conversion`.
    """
    with drawn(picture, rows=len(files), height=2.6 * len(files)) as (_, axes):
        for axis, (title, path) in zip(axes, files, strict=True):
            _draw_mel(axis, title, measure(path))
        axes[-1].set_xlabel("seconds")


def measure(path: Path) -> Levels:
    """Decode a file and measure `COLUMNS` windows of it at most, evenly spread; holds no more than those.

    Raises:
        InputError: the file cannot be decoded.
    """
    with tempfile.TemporaryDirectory(prefix="rvc-batch-plot-") as folder:
        signal = decode_to_scratch(path, Path(folder) / "signal.f32", WINDOW).signal
        return levels_of(signal)


def levels_of(signal: ScratchSignal) -> Levels:
    """Measure a signal at 16 kHz."""
    count = min(COLUMNS, 1 + signal.samples // WINDOW * 4)
    centres = np.linspace(0, signal.samples, count).astype(int)
    frames = np.stack([signal.read(int(c) - WINDOW // 2, int(c) + WINDOW // 2) for c in centres])
    magnitude: F64 = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) @ mel_filter_bank().T.astype(np.float64)
    mel_db = _decibels(magnitude / max(float(magnitude.max()), 1e-12))
    rms: F64 = np.sqrt(np.mean(frames**2, axis=1), dtype=np.float64)
    return Levels(signal.samples / SAMPLE_RATE_16K, mel_db, _decibels(rms))


def _decibels(level: F64) -> F64:
    decibels: F64 = 20 * np.log10(np.maximum(level, 10 ** (FLOOR_DB / 20)))
    return decibels


def _draw_mel(axis: Any, title: str, levels: Levels) -> None:
    bands = levels.mel_db.shape[1]
    axis.imshow(
        levels.mel_db.T,
        origin="lower",
        aspect="auto",
        vmin=FLOOR_DB,
        vmax=0,
        extent=(0, levels.seconds, 0, bands),
    )
    axis.set(title=title, ylabel="mel band (30 to 8000 Hz)")


def _draw_pitch(axis: Any, side: Side, colour: str) -> None:
    voiced = np.where(side.pitch.is_voiced(), side.pitch.f0, np.nan)
    times = np.arange(side.pitch.frames) / FRAME_RATE_HZ
    axis.plot(times, voiced, linewidth=1.2, color=colour, label=side.title)

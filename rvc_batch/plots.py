"""Pictures for people who would rather look than read: one conversion, before and after.

Needs matplotlib (the `plot` extra); nothing else in the package imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rvc_batch.engine.mel_basis import mel_filter_bank
from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.types import F32, F64, PitchTrack

WINDOW = 1024
FLOOR_DB = -80.0


def draw_conversion(before: Path, after: Path, f0_before: PitchTrack, f0_after: PitchTrack, picture: Path) -> None:
    """Draw waveform, log-mel and f0 of two audio files side by side into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(13, 8), sharex="col", layout="constrained")
    for column, (title, path, track) in enumerate((("in", before, f0_before), ("out", after, f0_after))):
        wave, rate = sf.read(path, dtype="float32", always_2d=True)
        _column(axes[:, column], wave.mean(axis=1), rate, track)
        axes[0, column].set_title(f"{title}: {path.name} ({rate} Hz)")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _column(axes: Any, wave: F32, rate: int, track: PitchTrack) -> None:
    waveform, mel, pitch = axes
    time = np.arange(wave.size) / rate
    waveform.plot(time, wave, linewidth=0.4)
    waveform.set(ylim=(-1, 1), ylabel="amplitude", xlim=(0, time[-1]))
    levels = mel_levels_db(wave, rate)
    mel.imshow(
        levels.T,
        origin="lower",
        aspect="auto",
        vmin=FLOOR_DB,
        vmax=0,
        extent=(0, levels.shape[0] * HOP_16K / SAMPLE_RATE_16K, 0, levels.shape[1]),
    )
    mel.set(ylabel="mel band (30 to 8000 Hz)")
    voiced = np.where(track.is_voiced(), track.f0, np.nan)
    pitch.plot(np.arange(track.frames) / 100, voiced, linewidth=1.2)
    pitch.set(ylabel="f0 in Hz", xlabel="seconds", yscale="log", ylim=(40, 1200))


def mel_levels_db(wave: F32, rate: int) -> F64:
    """Return mel levels in dB below the loudest, [frames, 128]."""
    import soxr

    low = soxr.resample(wave, rate, SAMPLE_RATE_16K)
    padded = np.pad(low, WINDOW // 2)
    starts = np.arange(0, low.size, HOP_16K)
    frames = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    magnitude = np.abs(np.fft.rfft(frames, axis=1)) @ mel_filter_bank().T
    levels: F64 = 20 * np.log10(np.maximum(magnitude / max(magnitude.max(), 1e-12), 10 ** (FLOOR_DB / 20)))
    return levels

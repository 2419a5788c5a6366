"""The methods that libraries compute: harvest with StoneMask (pyworld), autocorrelation (Praat). Extras, both.

Parameters are upstream's. Its user interface also takes the median of three frames after harvest; that is
`f0_smoothing = 3` here, for any method. Source: RVC infer/vc/pipeline.py get_f0 @ 9f2f055.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from rvc_batch.engine.network_config import FRAME_RATE_HZ, HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.pitch_pieces import Pieces
from rvc_batch.engine.types import F0_MAX_HZ, F0_MIN_HZ, F32, F64
from rvc_batch.errors import ExtraMissing

LIBRARIES = {
    "harvest": ("pyworld", "pyworld-prebuilt"),
    "pm": ("parselmouth", "praat-parselmouth"),
}  # module and package
# Harvest holds 190 bands of every millisecond: 1.5 MB per second of a piece
LIBRARY_PIECES = Pieces(kept=6_000, context=300, whole=6_600)
PRAAT_WINDOW_PERIODS = 3  # of the lowest f0: the length of Praat's window
# Praat centres its frames in the sound. Two samples more than the frames need keep their number from depending on
# rounding, and shift them by 0.06 ms.
SPARE_SAMPLES = 2


def harvest(wave: F64) -> F32:
    """Return f0 [1 + N // 160] of a wave at 16 kHz, refined by StoneMask.

    Raises:
        ExtraMissing: pyworld is not installed.
    """
    pyworld = library("harvest")
    wave = np.ascontiguousarray(wave, np.float64)
    coarse, times_s = pyworld.harvest(
        wave, SAMPLE_RATE_16K, f0_floor=F0_MIN_HZ, f0_ceil=F0_MAX_HZ, frame_period=1_000 / FRAME_RATE_HZ
    )
    f0: F32 = pyworld.stonemask(wave, coarse, times_s, SAMPLE_RATE_16K).astype(np.float32)
    return f0


def praat(wave: F64, threshold: float) -> F32:
    """Return f0 [1 + N // 160] of a wave at 16 kHz; the ends, half a window each, are unvoiced.

    threshold: of voicing, Praat's own measure, 0–1.

    Raises:
        ExtraMissing: praat-parselmouth is not installed.
    """
    parselmouth = library("pm")
    n_frames = 1 + wave.size // HOP_16K
    f0 = np.zeros(n_frames, np.float32)
    margin = PRAAT_WINDOW_PERIODS * FRAME_RATE_HZ // (2 * int(F0_MIN_HZ))  # frames in half a window
    if n_frames <= 2 * margin:
        return f0
    length = (n_frames - 1) * HOP_16K + SPARE_SAMPLES
    sound = parselmouth.Sound(np.pad(wave[:length], (0, max(length - wave.size, 0))), SAMPLE_RATE_16K)
    found = sound.to_pitch_ac(
        time_step=1 / FRAME_RATE_HZ, voicing_threshold=threshold, pitch_floor=F0_MIN_HZ, pitch_ceiling=F0_MAX_HZ
    ).selected_array["frequency"]
    f0[margin : n_frames - margin] = found
    return f0


def library(method: str) -> ModuleType:
    """Return the library that computes a method.

    Raises:
        ExtraMissing: it is not installed.
    """
    module, package = LIBRARIES[method]
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise ExtraMissing(
            f"pitch method {method} needs {package}, which cannot be imported ({e}); pip install {package}, or install "
            "rvc-batch with its extra: pip install '.[pitch]'"
        ) from e

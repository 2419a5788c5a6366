"""The records that travel between the parts of the engine.

Validation of rank, dtype, rate and finiteness sits here and nowhere else. Arrays are numpy; no
framework tensor ever leaves a backend.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rvc_batch.engine.network_config import FRAME_RATE_HZ, HOP_16K, SAMPLE_RATE_16K

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
Array = TypeVar("Array", F32, I64)

# The pitch code is a mel scale cut into 255 steps between these (RVC, infer/vc/pipeline.py).
F0_MIN_HZ, F0_MAX_HZ = 50.0, 1100.0
MEL_MIN = 1127.0 * float(np.log1p(F0_MIN_HZ / 700.0))
MEL_MAX = 1127.0 * float(np.log1p(F0_MAX_HZ / 700.0))


@dataclass(frozen=True)
class AudioInfo:
    """What the first pass over a file found.

    `frames` counts samples per channel at `sample_rate`; `peak` is that of the mono signal at 16 kHz.
    """

    sample_rate: int
    channels: int
    frames: int
    peak: float
    format: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class DeviceMemory:
    """What a framework holds on its device, in bytes: in use, kept for reuse, and how much it may keep."""

    active: int
    cache: int
    cache_limit: int


@dataclass(frozen=True)
class Segment:
    """One piece of the signal that the networks see whole; all fields in samples at 16 kHz.

    `start:stop` is what is kept; `left` and `right` samples of context lie around it in the padded signal.
    """

    index: int
    start: int
    stop: int
    left: int
    right: int

    @property
    def samples(self) -> int:
        """Samples handed to the networks."""
        return self.left + (self.stop - self.start) + self.right


@dataclass(frozen=True)
class ContentFeatures:
    """Content features, data: [T50, D] float32 at 50 frames per second."""

    data: F32

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.data.dtype != np.float32:
            raise ValueError(f"content features are {self.data.dtype}{self.data.shape}, expected float32 [T, D]")

    @property
    def frames(self) -> int:
        """Number of 20 ms frames."""
        return int(self.data.shape[0])

    @property
    def dim(self) -> int:
        """Feature width D."""
        return int(self.data.shape[1])


@dataclass(frozen=True)
class PitchTrack:
    """f0: [T100] float32 in Hz at 100 frames per second, 0 = unvoiced."""

    f0: F32

    def __post_init__(self) -> None:
        if self.f0.ndim != 1 or self.f0.dtype != np.float32:
            raise ValueError(f"f0 is {self.f0.dtype}{self.f0.shape}, expected float32 [T]")
        if not np.all(np.isfinite(self.f0)) or np.any(self.f0 < 0):
            raise ValueError("f0 holds negative or non-finite values")

    @property
    def frames(self) -> int:
        """Number of 10 ms frames."""
        return int(self.f0.shape[0])

    def is_voiced(self) -> npt.NDArray[np.bool_]:
        """Return which frames are voiced."""
        voiced: npt.NDArray[np.bool_] = self.f0 > 0
        return voiced

    def cut(self, start: int, stop: int) -> PitchTrack:
        """Return frames start:stop."""
        return PitchTrack(self.f0[start:stop])

    def coarse(self) -> I64:
        """Return the pitch code per frame, 1–255; unvoiced frames and everything below 50 Hz are 1.

        Rounds half to even. Source: RVC infer/vc/pipeline.py get_f0 @ 4338f12.
        """
        mel = 1127.0 * np.log1p(self.f0.astype(np.float64) / 700.0)
        code = np.where(mel > 0, (mel - MEL_MIN) * 254.0 / (MEL_MAX - MEL_MIN) + 1.0, 1.0)
        rounded: I64 = np.rint(np.clip(code, 1.0, 255.0)).astype(np.int64)
        return rounded


@dataclass(frozen=True)
class NoiseOrigin:
    """What noise by position starts from inside a network: a key of 32 bits, and the frame of the file that is here."""

    key: int
    frame: int


NO_ORIGIN = NoiseOrigin(0, 0)  # for voices that add no noise inside


@dataclass(frozen=True)
class SynthesisInputs:
    """All that a synthesiser sees.

    content: [T, D] float32 at 100 fps · coarse: [T] int64 1–255 (empty without f0) · source: [T·hop] float32, sine plus
    noise before the linear layer, [T·hop, H] for H harmonics (empty without f0) · valid: frames that count, the rest is
    masked to zero · origin: of the noise that RefineGAN adds in its stages.
    """

    content: F32
    coarse: I64
    source: F32
    speaker: int
    valid: int
    origin: NoiseOrigin = NO_ORIGIN

    def __post_init__(self) -> None:
        if self.content.ndim != 2 or self.content.dtype != np.float32:
            raise ValueError(f"content is {self.content.dtype}{self.content.shape}, expected float32 [T, D]")
        if self.coarse.ndim != 1 or self.coarse.size not in (0, self.frames):
            raise ValueError(f"{self.coarse.size} pitch codes for {self.frames} frames")
        samples = self.source.shape[0]
        if self.source.ndim not in (1, 2) or (samples and samples % max(self.frames, 1)):
            raise ValueError(f"{samples} source samples do not divide into {self.frames} frames")
        if not 0 <= self.valid <= self.frames:
            raise ValueError(f"{self.valid} valid frames of {self.frames}")

    @property
    def frames(self) -> int:
        """Number of 10 ms frames T."""
        return int(self.content.shape[0])

    def cut(self, start: int, stop: int) -> SynthesisInputs:
        """Return frames start:stop, with what belongs to them of pitch and source.

        Beyond the end follow frames of zeros that do not count.
        """
        hop = self.source.shape[0] // max(self.frames, 1)
        missing = max(stop - max(self.frames, start), 0)
        return SynthesisInputs(
            content=_extended(self.content[start:stop], missing),
            coarse=_extended(self.coarse[start:stop], missing if self.coarse.size else 0),
            source=_extended(self.source[start * hop : stop * hop], missing * hop),
            speaker=self.speaker,
            valid=min(max(self.valid - start, 0), stop - start),
            origin=NoiseOrigin(self.origin.key, self.origin.frame + start),
        )

    def mask(self) -> F32:
        """Return 1 for valid frames and 0 for the rest, [T]."""
        return (np.arange(self.frames) < self.valid).astype(np.float32)


def _extended(values: Array, rows: int) -> Array:
    """Append rows of zeros; nothing is copied when there are none."""
    if not rows:
        return values
    return np.concatenate([values, np.zeros((rows, *values.shape[1:]), values.dtype)])


@dataclass
class StageClock:
    """Wall seconds per stage, in the order the stages were first entered."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what happens inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class ConversionReport:
    """What one conversion did; stored with the job and printed by `convert --json`.

    peak_rss_bytes: of the process while this conversion ran (`resident_size`). peak_device_bytes: what the framework
    counted meanwhile, networks included; 0 where it does not count.
    """

    samples_in: int
    rate_in: int
    samples_out: int
    rate_out: int
    segments: int
    stage_seconds: dict[str, float]
    wall_seconds: float
    peak_rss_bytes: int
    peak_device_bytes: int
    seed: int
    dialect: str
    backend: str
    voice: str
    voice_sha256: str
    warnings: tuple[str, ...]
    versions: dict[str, str]
    precision: str = "float32"  # of the content network and the synthesiser
    channels_out: int = 1
    auto_key: int = 0  # semitones that the setting of that name added to the transposition
    reused: dict[str, int] = field(default_factory=dict)  # what came out of the feature cache, how often

    @property
    def seconds_in(self) -> float:
        """Length of the input in seconds."""
        return self.samples_in / self.rate_in

    @property
    def seconds_out(self) -> float:
        """Length of the output in seconds."""
        return self.samples_out / self.rate_out

    @property
    def realtime_factor(self) -> float:
        """Audio seconds per wall second (greater is faster)."""
        return self.seconds_in / self.wall_seconds if self.wall_seconds > 0 else 0.0


__all__ = [
    "F0_MAX_HZ",
    "F0_MIN_HZ",
    "F32",
    "F64",
    "FRAME_RATE_HZ",
    "HOP_16K",
    "I16",
    "I64",
    "SAMPLE_RATE_16K",
    "AudioInfo",
    "ContentFeatures",
    "ConversionReport",
    "DeviceMemory",
    "PitchTrack",
    "Segment",
    "StageClock",
    "SynthesisInputs",
]

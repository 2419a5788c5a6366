"""What happens to a rendered signal before it is a file: loudness mix, resampling, exact length, gate, level, encoding.

Two passes over the rendered float32 scratch, each in blocks: mix and resample to learn peak or loudness, then the same
again, scaled and encoded. Doing it twice costs less than a second copy of the signal on disk.
Source of the order: RVC infer/vc/pipeline.py @ 4338f12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine import loudness
from rvc_batch.engine.audio_io import BlockWriter, FloatScratch, output_rate
from rvc_batch.engine.decoding import BLOCK_SAMPLES
from rvc_batch.engine.dialect import Quantise, dialect_named
from rvc_batch.engine.effects import EffectChain, parse_effects
from rvc_batch.engine.filters import ScratchSignal, resample_blocks
from rvc_batch.engine.gate import Gate
from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.noise_reduction import reduced
from rvc_batch.engine.programme_loudness import TRUE_PEAK_CEILING_DB, ProgrammeMeter
from rvc_batch.engine.provenance import Provenance
from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.engine.types import F32, F64, AudioInfo

OUTPUT_RESAMPLER = "HQ"  # upstream resamples its output with soxr_hq
LOUDNESS_TOLERANCE_LU = 0.1  # less than that is not worth a warning


class Rendering:
    """The signal the generator makes, on disk, with the energies its loudness mix needs."""

    def __init__(self, wave: FloatScratch, energy: loudness.EnergyMeter, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._wave = wave
        self._energy = energy

    @classmethod
    def start(cls, path: Path, sample_rate: int) -> Rendering:
        """Return an empty rendering in the file `path`."""
        return cls(FloatScratch(path), loudness.EnergyMeter(sample_rate), sample_rate)

    @classmethod
    def resume(cls, path: Path, sample_rate: int, samples: int, energy: loudness.EnergyState) -> Rendering:
        """Return the rendering in `path` after its first `samples` samples; what lies beyond is dropped."""
        return cls(FloatScratch(path, samples), loudness.EnergyMeter(sample_rate, energy), sample_rate)

    @property
    def energy(self) -> loudness.EnergyState:
        """What `resume` needs beside the file."""
        return self._energy.state()

    @property
    def samples(self) -> int:
        """Samples so far."""
        return self._wave.samples

    def append(self, wave: F32) -> None:
        """Take the next samples.

        Raises:
            OutputInvalid: a sample is not finite. DiskFull: no space left.
        """
        self._wave.write(wave)
        self._energy.add(wave)

    def mixed(self, source_envelope: F64 | None, rate: float) -> Iterator[F32]:
        """Yield the signal with its loudness moved towards the source's; None leaves it as it is."""
        if source_envelope is None:
            yield from self._wave.blocks()
            return
        mix = loudness.EnvelopeMix(source_envelope, self._energy.envelope(), self.samples, rate)
        at = 0
        for block in self._wave.blocks():
            yield (block * mix.gain(at, at + block.size)).astype(np.float32)
            at += block.size

    def remove(self) -> None:
        """Remove the scratch."""
        self._wave.remove()


@dataclass(frozen=True)
class Sides:
    """What the mean of two channels lacks: at the rate of the output, to be scaled as the input was."""

    signal: ScratchSignal
    gain: float


class Finished:
    """Renderings with their loudness mixed, resampled and brought to length; computed each time it is read."""

    def __init__(
        self,
        renderings: Sequence[Rendering],
        envelopes: Sequence[F64 | None],
        settings: ConversionSettings,
        *,
        length: AudioInfo | None,
    ) -> None:
        """Describe the signal; nothing is computed yet.

        Args:
            renderings: one per channel, equally long. envelopes: loudness of their sources; None is not mixed.
            length: of the source, to be matched exactly by padding with silence or cutting; None keeps what was
                rendered.
        """
        first = renderings[0]
        asked = settings.resample_rate or first.sample_rate
        self.sample_rate = rate = output_rate(settings.output_format, asked)
        odd = f"{settings.output_format} knows no {asked} Hz: the output has {rate} Hz"
        self.warnings = () if rate == asked else (odd,)
        if length is None:  # upstream's resampler rounds up
            self.samples = -(-first.samples * rate // first.sample_rate)
        else:
            self.samples = round(length.frames * rate / length.sample_rate)
        self.gate: Gate | None = None
        self.sides: Sides | None = None
        self._effects, self._noise_reduction = parse_effects(settings.effects), settings.noise_reduction
        self._renderings, self._envelopes, self._rms_mix_rate = renderings, envelopes, settings.rms_mix_rate

    @property
    def channels(self) -> int:
        """1 or 2."""
        return 2 if self.sides else len(self._renderings)

    def blocks(self, progress: Callable[[float], None]) -> Iterator[F32]:
        """Yield the signal once, in order: [n], or [n, 2] where there are two channels.

        progress: is told the share that was taken, after each block; what it raises ends the pass.
        """
        done = 0
        chain = EffectChain(self._effects, self.sample_rate) if self._effects else None
        lanes = [self._lane(r, e) for r, e in zip(self._renderings, self._envelopes, strict=True)]
        if self._noise_reduction:
            lanes = [reduced(lane, self.sample_rate, self._noise_reduction) for lane in lanes]
        for parts in zip(*lanes, strict=True):
            block = parts[0] if len(parts) == 1 else np.stack(parts, axis=1)
            stop = done + len(block)
            if self.gate is not None:
                gain = self.gate.gain(done, stop).astype(np.float32)
                block = block * (gain if block.ndim == 1 else gain[:, None])
            if self.sides is not None:
                side = (self.sides.gain * self.sides.signal.read(done, stop)).astype(np.float32)
                block = np.stack([block + side, block - side], axis=1)
            yield block if chain is None else chain.apply(block)
            done = stop
            progress(done / max(self.samples, 1))

    def _lane(self, rendering: Rendering, envelope: F64 | None) -> Iterator[F32]:
        mixed = rendering.mixed(envelope, self._rms_mix_rate)
        done = 0
        for block in resample_blocks(mixed, rendering.sample_rate, self.sample_rate, OUTPUT_RESAMPLER):
            kept = block[: self.samples - done]
            done += kept.size
            yield kept
        while done < self.samples:
            silence = np.zeros(min(self.samples - done, BLOCK_SAMPLES), np.float32)
            done += silence.size
            yield silence


@dataclass(frozen=True)
class Level:
    """The factor that the signal gets on its way into the file, and what must be said about it."""

    gain: float
    warnings: tuple[str, ...] = ()


def find_level(finished: Finished, target_lufs: float, progress: Callable[[float], None]) -> Level:
    """Read the whole signal and decide how loud it is to be.

    Args:
        target_lufs: integrated loudness; 0 only brings a too loud signal down to 0.99.
        progress: of `Finished.blocks`.
    """
    if not target_lufs:
        peak = max((float(np.abs(block).max(initial=0.0)) for block in finished.blocks(progress)), default=0.0)
        return Level(loudness.output_gain(peak))
    meter = ProgrammeMeter(finished.sample_rate, finished.channels)
    for block in finished.blocks(progress):
        meter.add(block)
    found = meter.measure()
    gain = found.gain(target_lufs)
    if math.isinf(found.lufs):
        return Level(gain, ("silent, or shorter than 400 ms: its loudness cannot be told and is left as it is",))
    reached = found.lufs + 20 * math.log10(gain)
    if reached > target_lufs - LOUDNESS_TOLERANCE_LU:
        return Level(gain)
    sentence = f"peaks allow {reached:.1f} LUFS, {target_lufs:g} were asked for ({TRUE_PEAK_CEILING_DB:g} dBTP is kept)"
    return Level(gain, (sentence,))


def source_envelope(signal: ScratchSignal) -> F64:
    """Return the loudness envelope of the high-passed input."""
    meter = loudness.EnergyMeter(SAMPLE_RATE_16K)
    for block in signal.blocks():
        meter.add(block)
    return meter.envelope()


def encode(
    finished: Finished, gain: float, provenance: Provenance, target: Path, progress: Callable[[float], None]
) -> None:
    """Scale the signal and write the file.

    Args:
        gain: of `find_level`.
        provenance: goes into the tags; its settings choose format and rounding.
        progress: of `Finished.blocks`.

    Raises:
        DiskFull: no space left.
    """
    settings = provenance.settings
    subtype = OUTPUT_FORMATS[settings.output_format][2]
    quantise = dialect_named(settings.dialect).quantise
    writer = BlockWriter(
        target,
        settings.output_format,
        finished.sample_rate,
        finished.samples,
        channels=finished.channels,
        provenance=provenance,
    )
    try:
        for block in finished.blocks(progress):
            if quantise is Quantise.INT16 and subtype == "PCM_16":
                writer.write(loudness.to_pcm16(block, gain))
            else:
                writer.write((block * np.float32(gain)).astype(np.float32))
    finally:
        writer.close()

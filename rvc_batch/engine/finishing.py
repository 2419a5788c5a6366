"""What happens to a rendered signal before it is a file: loudness mix, resampling, exact length, peak, encoding.

Two passes over the rendered float32 scratch, each in blocks: mix and resample to learn the peak, then the same again,
scaled and encoded. Doing it twice costs less than a second copy of the signal on disk.
Source of the order: RVC infer/vc/pipeline.py @ 4338f12.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvc_batch.engine import loudness
from rvc_batch.engine.audio_io import BLOCK_SAMPLES, BlockWriter, FloatScratch, output_rate
from rvc_batch.engine.dialect import Quantise, dialect_named
from rvc_batch.engine.filters import ScratchSignal, resample_blocks
from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.provenance import Provenance
from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.engine.types import F32, F64, AudioInfo

OUTPUT_RESAMPLER = "HQ"  # upstream resamples its output with soxr_hq


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


class Finished:
    """A rendering with its loudness mixed, resampled and brought to length; computed each time it is read."""

    def __init__(
        self, rendering: Rendering, envelope: F64 | None, settings: ConversionSettings, *, length: AudioInfo | None
    ) -> None:
        """Describe the signal; nothing is computed yet.

        Args:
            envelope: loudness of the source; None when it is not mixed.
            length: of the source, to be matched exactly by padding with silence or cutting; None keeps what was
                rendered.
        """
        asked = settings.resample_rate or rendering.sample_rate
        self.sample_rate = rate = output_rate(settings.output_format, asked)
        odd = f"{settings.output_format} knows no {asked} Hz: the output has {rate} Hz"
        self.warnings = () if rate == asked else (odd,)
        if length is None:  # upstream's resampler rounds up
            self.samples = -(-rendering.samples * rate // rendering.sample_rate)
        else:
            self.samples = round(length.frames * rate / length.sample_rate)
        self._rendering, self._envelope, self._rms_mix_rate = rendering, envelope, settings.rms_mix_rate

    def blocks(self) -> Iterator[F32]:
        """Yield the signal once, in order."""
        mixed = self._rendering.mixed(self._envelope, self._rms_mix_rate)
        done = 0
        for block in resample_blocks(mixed, self._rendering.sample_rate, self.sample_rate, OUTPUT_RESAMPLER):
            kept = block[: self.samples - done]
            done += kept.size
            yield kept
        while done < self.samples:
            silence = np.zeros(min(self.samples - done, BLOCK_SAMPLES), np.float32)
            done += silence.size
            yield silence

    def peak(self) -> float:
        """Return the greatest magnitude; reads the whole signal."""
        return max((float(np.abs(block).max(initial=0.0)) for block in self.blocks()), default=0.0)


def source_envelope(signal: ScratchSignal) -> F64:
    """Return the loudness envelope of the high-passed input."""
    meter = loudness.EnergyMeter(SAMPLE_RATE_16K)
    for block in signal.blocks():
        meter.add(block)
    return meter.envelope()


def encode(finished: Finished, peak: float, provenance: Provenance, target: Path) -> None:
    """Scale a too loud signal to 0.99 and write the file.

    Args:
        peak: of `finished`.
        provenance: goes into the tags; its settings choose format and rounding.

    Raises:
        DiskFull: no space left.
    """
    gain, settings = loudness.output_gain(peak), provenance.settings
    subtype = OUTPUT_FORMATS[settings.output_format][2]
    quantise = dialect_named(settings.dialect).quantise
    writer = BlockWriter(target, settings.output_format, finished.sample_rate, finished.samples, provenance=provenance)
    try:
        for block in finished.blocks():
            if quantise is Quantise.INT16 and subtype == "PCM_16":
                writer.write(loudness.to_pcm16(block, gain))
            else:
                writer.write((block * np.float32(gain)).astype(np.float32))
    finally:
        writer.close()

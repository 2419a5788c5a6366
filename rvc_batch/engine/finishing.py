"""What happens to a rendered signal before it is a file: loudness mix, resampling, exact length, peak, encoding.

Three passes over float32 scratch, each in blocks: mix and resample (the peak is known at its end), then scale and
encode. Source of the order: RVC infer/vc/pipeline.py @ 4338f12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine import loudness
from rvc_batch.engine.audio_io import BlockWriter, FloatScratch, output_rate
from rvc_batch.engine.dialect import Quantise, dialect_named
from rvc_batch.engine.filters import ScratchSignal, resample_blocks
from rvc_batch.engine.network_config import SAMPLE_RATE_16K
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


@dataclass(frozen=True)
class Finished:
    """A signal ready to be encoded."""

    wave: FloatScratch
    sample_rate: int
    peak: float
    warnings: tuple[str, ...]


def source_envelope(signal: ScratchSignal) -> F64:
    """Return the loudness envelope of the high-passed input."""
    meter = loudness.EnergyMeter(SAMPLE_RATE_16K)
    for block in signal.blocks():
        meter.add(block)
    return meter.envelope()


def finish(
    rendering: Rendering,
    envelope: F64 | None,
    settings: ConversionSettings,
    *,
    length: AudioInfo | None,
    path: Path,
) -> Finished:
    """Mix, resample and bring to length.

    Args:
        envelope: of the source; None when loudness is not mixed.
        length: of the source, to be matched exactly; None keeps what was rendered.
        path: scratch file for the result.
    """
    asked = settings.resample_rate or rendering.sample_rate
    rate = output_rate(settings.output_format, asked)
    warnings = () if rate == asked else (f"MP3 knows no {asked} Hz: the output has {rate} Hz",)
    if length is None:  # upstream's resampler rounds up
        wanted = -(-rendering.samples * rate // rendering.sample_rate)
    else:
        wanted = round(length.frames * rate / length.sample_rate)
    wave = FloatScratch(path)
    peak = 0.0
    mixed = rendering.mixed(envelope, settings.rms_mix_rate)
    for block in resample_blocks(mixed, rendering.sample_rate, rate, OUTPUT_RESAMPLER):
        kept = block[: wanted - wave.samples]
        peak = max(peak, float(np.abs(kept).max(initial=0.0)))
        wave.write(kept)
    if wave.samples < wanted:
        wave.write(np.zeros(wanted - wave.samples, np.float32))
    return Finished(wave, rate, peak, warnings)


def encode(finished: Finished, settings: ConversionSettings, target: Path) -> None:
    """Scale a too loud signal to 0.99 and write the file.

    Raises:
        DiskFull: no space left.
    """
    gain = loudness.output_gain(finished.peak)
    subtype = OUTPUT_FORMATS[settings.output_format][2]
    quantise = dialect_named(settings.dialect).quantise
    writer = BlockWriter(target, settings.output_format, finished.sample_rate, finished.wave.samples)
    try:
        for block in finished.wave.blocks():
            if quantise is Quantise.INT16 and subtype == "PCM_16":
                writer.write(loudness.to_pcm16(block, gain))
            else:
                writer.write((block * np.float32(gain)).astype(np.float32))
    finally:
        writer.close()

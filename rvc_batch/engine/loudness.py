"""Loudness: the source's envelope mixed into the output, and the peak rule. Both in streaming form.

The envelope is the RMS over 1 s every 0.5 s. A window is two neighbouring half-second blocks, so the energies of the
blocks are all that must be remembered. Source: RVC infer/vc/pipeline.py change_rms @ 4338f12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rvc_batch.engine.types import F32, F64, I16

TARGET_FLOOR = 1e-6
PEAK_CEILING = 0.99
INPUT_CEILING = 0.95
PCM16_SCALE = 32_768


@dataclass(frozen=True)
class EnergyState:
    """Where an EnergyMeter is: energies of whole blocks, and the block that is not full yet."""

    blocks: tuple[float, ...] = ()
    partial: float = 0.0
    filled: int = 0


class EnergyMeter:
    """Accumulates the energy of half-second blocks of a stream."""

    def __init__(self, sample_rate: int, state: EnergyState = EnergyState()) -> None:
        self.hop = sample_rate // 2
        self._energies = list(state.blocks)
        self._partial, self._filled = state.partial, state.filled
        self.samples = len(state.blocks) * self.hop + state.filled

    def state(self) -> EnergyState:
        """Return what is needed to go on later."""
        return EnergyState(tuple(self._energies), self._partial, self._filled)

    def add(self, wave: F32 | F64) -> None:
        """Take the next samples of the stream."""
        self.samples += wave.size
        squares = np.square(wave.astype(np.float64))
        at = 0
        while at < squares.size:
            take = min(self.hop - self._filled, squares.size - at)
            self._partial += float(squares[at : at + take].sum())
            self._filled += take
            at += take
            if self._filled == self.hop:
                self._energies.append(self._partial)
                self._partial, self._filled = 0.0, 0

    def envelope(self) -> F64:
        """Return the RMS per half second, [1 + samples // hop]; beyond both ends the signal counts as zero."""
        blocks = np.array([0.0, *self._energies, self._partial, 0.0])[: 2 + self.samples // self.hop]
        rms: F64 = np.sqrt((blocks[:-1] + blocks[1:]) / (2 * self.hop))
        return rms


class EnvelopeMix:
    """Gain per sample that moves an output's loudness towards its source's.

    Args:
        source: envelope of the high-passed input. target: envelope of the rendered output.
        samples: length of the output. rate: 1 = keep the output's loudness, 0 = copy the source's.
    """

    def __init__(self, source: F64, target: F64, samples: int, rate: float) -> None:
        self._source, self._target, self._samples, self._rate = source, target, samples, rate

    def gain(self, start: int, stop: int) -> F64:
        """Return the gain of samples start:stop."""
        source = self._stretch(self._source, start, stop)
        target = np.maximum(self._stretch(self._target, start, stop), TARGET_FLOOR)
        gain: F64 = source ** (1 - self._rate) * target ** (self._rate - 1)
        return gain

    def _stretch(self, envelope: F64, start: int, stop: int) -> F64:
        """Interpolate linearly with half-pixel centres (not end-aligned)."""
        position = (np.arange(start, stop) + 0.5) * (envelope.size / self._samples) - 0.5
        stretched: F64 = np.interp(position, np.arange(envelope.size), envelope)
        return stretched


def input_gain(peak: float) -> float:
    """Return the factor that brings a too loud input down to 0.95; quiet inputs stay as they are."""
    return min(1.0, INPUT_CEILING / peak) if peak > 0 else 1.0


def output_gain(peak: float) -> float:
    """Return the factor that brings a too loud output down to 0.99."""
    return min(1.0, PEAK_CEILING / peak) if peak > 0 else 1.0


def to_pcm16(wave: F32, gain: float) -> I16:
    """Quantise as the original does: times 32768, truncated toward zero, never wrapping."""
    scaled = wave.astype(np.float32) * np.float32(PCM16_SCALE * gain)
    pcm: I16 = np.clip(np.trunc(scaled), -PCM16_SCALE, PCM16_SCALE - 1).astype(np.int16)
    return pcm

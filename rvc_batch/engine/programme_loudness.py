"""How loud a programme is, and how high it peaks between its samples: ITU-R BS.1770-4 in streaming form.

The signal is K-weighted with the filter state carried from block to block; what is remembered are the energies of
100 ms, of which four make a gating block. True peak is that of the signal at four times its rate.
Source: BS.1770-4 annex 1 and 2; its filters are stated for 48 kHz only, the form for any rate is that of libebur128
(ebur128_init_filter @ 67b33ab), which equals them there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr
from scipy import signal as scipy_signal

from rvc_batch.engine.loudness import EnergyMeter
from rvc_batch.engine.types import F32, F64

TRUE_PEAK_CEILING_DB = -1.0  # dBTP, EBU R 128
OVERSAMPLING = 4
BLOCK_HOPS = 4  # a gating block is 400 ms, three quarters of it shared with the next
OFFSET_DB = -0.691  # BS.1770-4, equation 2
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0


@dataclass(frozen=True)
class Measure:
    """lufs: integrated loudness, −inf for silence and for less than 400 ms · true_peak: magnitude, 1 = full scale."""

    lufs: float
    true_peak: float

    def gain(self, target_lufs: float) -> float:
        """Return the factor that brings the programme to `target_lufs`, or as near as the ceiling of peaks allows.

        A programme whose loudness cannot be told is only kept below the ceiling.
        """
        wanted = 1.0 if math.isinf(self.lufs) else 10 ** ((target_lufs - self.lufs) / 20)
        ceiling = 10 ** (TRUE_PEAK_CEILING_DB / 20)
        return min(wanted, ceiling / self.true_peak) if self.true_peak > 0 else wanted


class ProgrammeMeter:
    """Measures a stream of one or two channels."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._filters = k_weighting(sample_rate)
        self._states = [np.zeros((max(len(b), len(a)) - 1, channels)) for b, a in self._filters]
        hop = round(sample_rate / 10)
        self._energies = [EnergyMeter(2 * hop) for _ in range(channels)]  # which works in halves of what it is told
        self._hop = hop
        self._finer = soxr.ResampleStream(sample_rate, OVERSAMPLING * sample_rate, channels, dtype="float32")
        self._peak = 0.0

    def add(self, wave: F32) -> None:
        """Take the next samples, [n] or [n, channels]."""
        wave = wave.reshape(len(wave), -1)
        self._see(wave)
        self._see(self._finer.resample_chunk(np.ascontiguousarray(wave)).reshape(-1, wave.shape[1]))
        weighted: F64 = wave.astype(np.float64)
        for number, (b, a) in enumerate(self._filters):
            weighted, self._states[number] = scipy_signal.lfilter(b, a, weighted, axis=0, zi=self._states[number])
        for meter, channel in zip(self._energies, weighted.T, strict=True):
            meter.add(channel)

    def measure(self) -> Measure:
        """Return what the whole stream amounts to; call it once, at the end."""
        self._see(self._finer.resample_chunk(np.zeros((0, len(self._energies)), np.float32), last=True))
        hops = np.sum([meter.state().blocks for meter in self._energies], axis=0)
        if hops.size < BLOCK_HOPS:
            return Measure(-math.inf, self._peak)
        power = np.convolve(hops, np.ones(BLOCK_HOPS), "valid") / (BLOCK_HOPS * self._hop)
        loud = power[power > _power(ABSOLUTE_GATE_LUFS)]
        if loud.size == 0:
            return Measure(-math.inf, self._peak)
        kept = loud[loud > loud.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
        return Measure(OFFSET_DB + 10 * math.log10(kept.mean()), self._peak)

    def _see(self, wave: F32) -> None:
        self._peak = max(self._peak, float(np.abs(wave).max(initial=0.0)))


def k_weighting(sample_rate: int) -> tuple[tuple[F64, F64], tuple[F64, F64]]:
    """Return (b, a) of the high shelf of 4 dB, which stands for the head, and of the high-pass after it."""
    k, q = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    shelf_b = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k])
    shelf_a = np.array([1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k])
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    pass_a = np.array([1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k])
    return (shelf_b / shelf_a[0], shelf_a / shelf_a[0]), (np.array([1.0, -2.0, 1.0]), pass_a / pass_a[0])


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET_DB) / 10))

"""Resampling and the zero-phase high-pass, both in bounded memory.

The high-pass runs forward over the signal and backward over the result, block by block with the filter state carried,
through a scratch file: the same arithmetic as filtering the whole array at once, hence the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr
from scipy import signal as scipy_signal

from rvc_batch.engine.types import F32, F64

BLOCK = 1 << 18  # samples per block: 16 s at 16 kHz
ORDER, CUTOFF_HZ, RATE_HZ = 5, 48.0, 16_000  # RVC infer/vc/pipeline.py @ 4338f12
PAD = 3 * (ORDER + 1)  # scipy's default odd extension of filtfilt
FLOAT32, FLOAT64 = np.dtype("<f4"), np.dtype("<f8")


def resample_blocks(blocks: Iterable[F32], rate_in: int, rate_out: int, quality: str = "VHQ") -> Iterator[F32]:
    """Resample a mono stream with soxr; passes blocks through when the rates agree."""
    if rate_in == rate_out:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality=quality)
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


class ScratchSignal:
    """A mono signal at 16 kHz in a file, readable anywhere with reflection beyond both ends.

    The file is opened for each read: nothing has to be closed, whatever goes wrong in between.
    """

    def __init__(self, path: Path, samples: int, stored: np.dtype[Any] = FLOAT64) -> None:
        """Read the first `samples` samples of `path`, which holds numbers of the type `stored`."""
        self._path = path
        self._samples = samples
        self._stored = stored

    @property
    def samples(self) -> int:
        """Length."""
        return self._samples

    def read(self, start: int, stop: int) -> F64:
        """Return samples start:stop; beyond the ends the signal is reflected without repeating the edge sample.

        Equal to slicing `numpy.pad(signal, …, mode="reflect")`, also for signals shorter than the reflection.
        """
        if start >= 0 and stop <= self._samples:
            return self._read_inside(start, stop)
        period = max(2 * (self._samples - 1), 1)
        folded = np.mod(np.arange(start, stop), period)
        folded = np.where(folded >= self._samples, period - folded, folded)
        low, high = int(folded.min()), int(folded.max()) + 1
        inside: F64 = self._read_inside(low, high)[folded - low]
        return inside

    def _read_inside(self, start: int, stop: int) -> F64:
        stored = np.fromfile(self._path, self._stored, count=stop - start, offset=start * self._stored.itemsize)
        wave: F64 = stored.astype(np.float64, copy=False)
        return wave

    def blocks(self, size: int = BLOCK) -> Iterator[F64]:
        """Yield the signal once, in order."""
        for at in range(0, self._samples, size):
            yield self._read_inside(at, min(at + size, self._samples))

    def rewritten(self, path: Path, stored: np.dtype[Any]) -> ScratchSignal:
        """Return the same signal in the file `path`, in numbers of the type `stored`."""
        with path.open("wb") as out:
            for block in self.blocks():
                out.write(block.astype(stored).tobytes())
        return ScratchSignal(path, self._samples, stored)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def highpass_to_file(source: ScratchSignal, target: Path, gain: float = 1.0) -> ScratchSignal:
    """Filter gain · `source` forward and backward with the 48 Hz Butterworth high-pass into `target`.

    Equal to `scipy.signal.filtfilt(b, a, gain * x)` with its default padding.

    Raises:
        ValueError: the signal has 18 samples or fewer.
    """
    if source.samples <= PAD:
        raise ValueError(f"{source.samples} samples are too few to filter, at least {PAD + 1} are needed")
    b, a = scipy_signal.butter(ORDER, CUTOFF_HZ, btype="high", fs=RATE_HZ)
    settled = scipy_signal.lfilter_zi(b, a)
    with target.open("w+b") as file:
        _forward(source, gain, file, b, a, settled)
        _backward(source.samples, file, b, a, settled)
    return ScratchSignal(target, source.samples)


def _forward(source: ScratchSignal, gain: float, file: BinaryIO, b: F64, a: F64, settled: F64) -> None:
    """Write the filtered signal, 18 extra samples at the end included, the 18 at the start not."""
    head = gain * source.read(0, PAD + 1)
    tail = gain * source.read(source.samples - PAD - 1, source.samples)
    before = 2 * head[0] - head[PAD:0:-1]
    after = 2 * tail[-1] - tail[-2::-1]
    _, state = scipy_signal.lfilter(b, a, before, zi=settled * before[0])
    for block in source.blocks():
        filtered, state = scipy_signal.lfilter(b, a, gain * block, zi=state)
        file.write(filtered.astype(FLOAT64).tobytes())
    filtered, state = scipy_signal.lfilter(b, a, after, zi=state)
    file.write(filtered.astype(FLOAT64).tobytes())


def _backward(samples: int, file: BinaryIO, b: F64, a: F64, settled: F64) -> None:
    """Filter what `_forward` wrote from its end to its start, in place."""

    def load(start: int, stop: int) -> F64:
        file.seek(start * FLOAT64.itemsize)
        return np.frombuffer(file.read((stop - start) * FLOAT64.itemsize), FLOAT64)

    extension = load(samples, samples + PAD)[::-1]
    _, state = scipy_signal.lfilter(b, a, extension, zi=settled * extension[0])
    for stop in range(samples, 0, -BLOCK):
        start = max(stop - BLOCK, 0)
        filtered, state = scipy_signal.lfilter(b, a, load(start, stop)[::-1], zi=state)
        file.seek(start * FLOAT64.itemsize)
        file.write(filtered[::-1].astype(FLOAT64).tobytes())
    file.truncate(samples * FLOAT64.itemsize)

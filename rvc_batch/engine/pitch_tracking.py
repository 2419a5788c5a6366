"""f0 of a whole signal by the method that was chosen. Each method has a file of its own; this one puts them to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.dialect import Dialect
from rvc_batch.engine.network_config import HOP_16K
from rvc_batch.engine.pitch import decode_salience
from rvc_batch.engine.pitch_crepe import crepe_f0_blocks
from rvc_batch.engine.pitch_fcpe import decode_fcpe, fcpe_salience_blocks
from rvc_batch.engine.pitch_libraries import LIBRARY_PIECES, harvest, praat
from rvc_batch.engine.pitch_methods import PitchChoice, methods_named
from rvc_batch.engine.pitch_pieces import f0_in_pieces
from rvc_batch.engine.pitch_windows import PaddedSignal, salience_blocks
from rvc_batch.engine.segments import Signal
from rvc_batch.engine.tiling import WorkSizes
from rvc_batch.engine.types import F32, F64, PitchTrack


@dataclass(frozen=True)
class _Reflected:
    """A signal with its reflected context, positions counted from the start of the context."""

    signal: Signal
    pad: int

    @property
    def samples(self) -> int:
        return self.signal.samples + 2 * self.pad

    def read(self, start: int, stop: int) -> F64:
        return self.signal.read(start - self.pad, stop - self.pad)


def track_pitch(
    backend: Backend,
    signal: Signal,
    rules: Dialect,
    sizes: WorkSizes,
    *,
    choice: PitchChoice,
    progress: Callable[[float], None],
) -> PitchTrack:
    """Return f0 of the signal with one pad of reflection on both sides, 1 + (samples + 2 · pad) // 160 frames.

    Args:
        progress: told the share that is done, 0–1, after each window; may raise to stop.

    Raises:
        ExtraMissing: the method needs a library that is not installed.
    """
    padded = _Reflected(signal, rules.pad)
    n_frames = 1 + padded.samples // HOP_16K
    methods = methods_named(choice.method)
    tracks = np.zeros((len(methods), n_frames), np.float32)
    for number, method in enumerate(methods):
        done = 0
        for block in _f0_blocks(method.name, choice.threshold or method.threshold, backend, padded, rules, sizes):
            tracks[number, done : done + block.size] = block
            done += block.size
            progress((number + done / n_frames) / len(methods))
        assert done == n_frames
    return PitchTrack(tracks[0]) if len(methods) == 1 else majority(tracks)


def majority(tracks: F32) -> PitchTrack:
    """Return what most of several methods say, for f0 [methods, T].

    A frame is voiced where more than half of them find it voiced: of two, both. Its f0 is the median in log frequency
    of those that do; of an even number, the geometric mean of the middle two.
    """
    is_voiced = tracks > 0
    votes = is_voiced.sum(axis=0)
    f0 = np.zeros(tracks.shape[1], np.float32)
    for count in range(tracks.shape[0] // 2 + 1, tracks.shape[0] + 1):
        at = np.flatnonzero(votes == count)
        octaves = np.sort(
            np.log2(tracks[:, at], where=is_voiced[:, at], out=np.full((len(tracks), at.size), np.inf)), 0
        )
        f0[at] = 2.0 ** np.median(octaves[:count], axis=0)
    return PitchTrack(f0)


def _f0_blocks(
    method: str, threshold: float | None, backend: Backend, signal: PaddedSignal, rules: Dialect, sizes: WorkSizes
) -> Iterator[F32]:
    """Yield f0 of consecutive frames."""
    match method:
        case "rmvpe":
            assert threshold is not None
            for salience in salience_blocks(backend, signal, rules.mel_padding, sizes):
                yield decode_salience(salience, threshold).f0
        case "fcpe":
            assert threshold is not None
            for salience in fcpe_salience_blocks(backend, signal, sizes.pitch_tile_frames):
                yield decode_fcpe(salience, threshold, backend.fcpe_config()).f0
        case "crepe" | "crepe-tiny":
            assert threshold is not None
            yield from crepe_f0_blocks(backend, method, signal, threshold)
        case "harvest":
            yield from f0_in_pieces(signal, harvest, LIBRARY_PIECES)
        case "pm":
            assert threshold is not None
            yield from f0_in_pieces(signal, lambda wave: praat(wave, threshold), LIBRARY_PIECES)
        case _:
            raise AssertionError(method)

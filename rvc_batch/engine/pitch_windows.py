"""Salience of a long signal in windows: flat memory, and nearly the result of one pass over the whole.

The convolutions (U-Net) run in tiles with their computed halo, which is exact: how long the tiles are is a matter of
memory alone. The recurrent layer goes in windows that are part of the result and therefore fixed: it is carried forward
exactly; backwards it starts LOOK_AHEAD_FRAMES after what is kept, by when it has forgotten where it started (measured
in docs/pitch-windows.md). A signal of up to WHOLE_FRAMES takes one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.network_config import HOP_16K
from rvc_batch.engine.tiling import WorkSizes, pitch_halo, tiles
from rvc_batch.engine.types import F32, F64

LOOK_AHEAD_FRAMES = 512  # 5.1 s
WINDOW_FRAMES = 8_192
WHOLE_FRAMES = 12_000
MEL_MARGIN_FRAMES = 4  # half a window of 1024 samples


@dataclass(frozen=True)
class PitchWindows:
    """How the recurrent layer hears a long signal, in frames; tests use others than the published ones.

    kept: per window. look_ahead: heard backwards beyond what is kept, at most a window. whole: up to so many there is
    one window.
    """

    kept: int = WINDOW_FRAMES
    look_ahead: int = LOOK_AHEAD_FRAMES
    whole: int = WHOLE_FRAMES


PUBLISHED_WINDOWS = PitchWindows()


class PaddedSignal(Protocol):
    """A signal at 16 kHz, context included, that can be read by position."""

    @property
    def samples(self) -> int:
        """Length."""

    def read(self, start: int, stop: int) -> F64:
        """Return samples start:stop, 0 ≤ start < stop ≤ samples."""


def salience_blocks(
    backend: Backend,
    signal: PaddedSignal,
    padding: MelPadding,
    sizes: WorkSizes,
    windows: PitchWindows = PUBLISHED_WINDOWS,
) -> Iterator[F32]:
    """Yield salience [n, 360] of consecutive frames, 1 + samples // 160 in all."""
    n_frames = 1 + signal.samples // HOP_16K
    is_whole = n_frames <= windows.whole
    if is_whole and n_frames <= sizes.pitch_tile_frames:
        wave = signal.read(0, signal.samples).astype(np.float32)
        yield backend.pitch_salience(wave, padding=padding)
        return
    planes = _planes(backend, signal, padding, n_frames, sizes.pitch_tile_frames)
    yield from _recurrent(backend, _rows(planes, n_frames if is_whole else windows.kept), windows.look_ahead, n_frames)


def _planes(
    backend: Backend, signal: PaddedSignal, padding: MelPadding, n_frames: int, tile_frames: int
) -> Iterator[F32]:
    """Yield what the recurrent layer hears, tile by tile, for all frames rounded up to a multiple of 32.

    tile_frames: frames kept per tile, a multiple of 32.
    """
    cell = backend.pitch_config.frame_multiple
    total = -(-n_frames // cell) * cell
    for tile in tiles(0, total, total, tile_frames, pitch_halo(backend.pitch_config)):
        mel = _mel(backend, signal, tile.first, min(tile.last, n_frames), n_frames)
        missing = tile.last - tile.first - mel.shape[0]
        if missing:
            mode = "constant" if padding is MelPadding.ZEROS else "reflect"
            mel = np.pad(mel, ((0, missing), (0, 0)), mode=mode)  # type: ignore[call-overload]
        yield backend.pitch_planes(mel)[tile.keep_first - tile.first : tile.keep_last - tile.first]


def _mel(backend: Backend, signal: PaddedSignal, first: int, last: int, n_frames: int) -> F32:
    """Return log-mel frames first:last; away from the ends of the signal they come with a margin that is dropped."""
    low, high = max(first - MEL_MARGIN_FRAMES, 0), min(last + MEL_MARGIN_FRAMES, n_frames)
    stop = signal.samples if high == n_frames else (high - 1) * HOP_16K + 1
    mel = backend.log_mel(signal.read(low * HOP_16K, stop).astype(np.float32))
    return mel[first - low : last - low]


def _rows(blocks: Iterator[F32], size: int) -> Iterator[F32]:
    """Cut a stream of rows anew into blocks of `size`, the last one shorter."""
    held: list[F32] = []
    missing = size
    for block in blocks:
        while block.shape[0] >= missing:
            yield np.concatenate([*held, block[:missing]])
            held, block, missing = [], block[missing:], size
        held.append(block)
        missing -= block.shape[0]
    if missing < size:
        yield np.concatenate(held)


def _recurrent(backend: Backend, planes: Iterator[F32], look_ahead: int, n_frames: int) -> Iterator[F32]:
    """Run the recurrent layer over a stream of windows, one window behind so that it can hear ahead."""
    state = np.zeros(backend.pitch_config.gru_hidden, np.float32)
    done = 0
    current = next(planes)
    for following in planes:
        heard = np.concatenate([current, following[:look_ahead]])
        salience, states = backend.pitch_head(heard, state)
        yield salience[: current.shape[0]]
        state = states[current.shape[0] - 1]
        done += current.shape[0]
        current = following
    salience, _ = backend.pitch_head(current, state)
    yield salience[: n_frames - done]

"""The first passes over a file: decoded, filtered, cut. What is left on disk is all that the networks will ever read.

    decoded (float32) → high-passed (float64) → cut points, loudness envelope → the networks' input (float32)

The cut points and the envelope are taken from the float64 signal; the networks get float32 anyhow, so that is what is
kept, and the two larger files are gone before anything is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine import loudness
from rvc_batch.engine.audio_io import decode_to_scratch
from rvc_batch.engine.checkpointing import Record, Workspace
from rvc_batch.engine.decoding import Pick, mono
from rvc_batch.engine.dialect import Dialect
from rvc_batch.engine.filters import FLOAT32, ScratchSignal, highpass_to_file
from rvc_batch.engine.finishing import source_envelope
from rvc_batch.engine.gate import levels
from rvc_batch.engine.network_config import HOP_16K
from rvc_batch.engine.segments import find_cuts
from rvc_batch.engine.types import AudioInfo, StageClock

MIN_SAMPLES = 2 * HOP_16K  # shorter inputs are padded with silence and trimmed back


@dataclass(frozen=True)
class Prepared:
    """The input after the first passes: filtered on disk, cut into segments."""

    info: AudioInfo
    signal: ScratchSignal
    cuts: tuple[int, ...]
    warnings: tuple[str, ...]


def prepare(
    source: Path,
    workspace: Workspace,
    rules: Dialect,
    clock: StageClock,
    *,
    pick: Pick = mono,
    guide: Prepared | None = None,
) -> Prepared:
    """Read `source` into `workspace`.

    Args:
        pick: which channel, or the mean of all.
        guide: the downmix, whose cuts and gain are those of its channels; None for the downmix itself.

    Raises:
        InputError, DiskFull: see `decode_to_scratch`.
    """
    with clock.timed("decode"):
        decoded = decode_to_scratch(source, workspace.decoded, MIN_SAMPLES, pick=pick)
    with clock.timed("filter"):
        gain = loudness.input_gain((guide or decoded).info.peak)
        precise = highpass_to_file(decoded.signal, workspace.filtered, gain)
        decoded.signal.remove()
        cuts = guide.cuts if guide else tuple(find_cuts(precise, rules))
        np.save(workspace.envelope, source_envelope(precise))
        np.save(workspace.levels, levels(precise, gain))
        signal = precise.rewritten(workspace.signal, FLOAT32)
        precise.remove()
    return Prepared(decoded.info, signal, cuts, tuple(decoded.warnings))


def reopen(record: Record, workspace: Workspace) -> Prepared:
    """Return what an interrupted conversion had prepared."""
    signal = ScratchSignal(workspace.signal, record.signal_samples, FLOAT32)
    return Prepared(record.info, signal, record.cuts, record.warnings)

"""The first passes over a file: decoded, filtered, cut. What is left on disk is all that the networks will ever read.

    decoded (float32) → high-passed (float64) → cut points, loudness envelope → the networks' input (float32)

Where formants are to be shifted, that is done first, as Applio does: peak, envelope and cuts are those of the result.

The cut points and the envelope are taken from the float64 signal; the networks get float32 anyhow, so that is what is
kept, and the two larger files are gone before anything is rendered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from rvc_batch.engine.formants import UNSHIFTED, FormantShift, shift_to_file
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
    formants: FormantShift = UNSHIFTED,
    guide: Prepared | None = None,
    progress: Callable[[float, float], None] = lambda *_: None,
) -> Prepared:
    """Read `source` into `workspace`.

    Args:
        pick: which channel, or the mean of all.
        formants: how those of the input are moved before anything else is done with it.
        guide: the downmix, whose cuts and gain are those of its channels; None for the downmix itself.
        progress: is told the share of the formant shift that is done, and the seconds of the whole; the other passes
            are too fast to be asked.

    Raises:
        InputError, DiskFull: see `decode_to_scratch`.
    """
    with clock.timed("decode"):
        decoded = decode_to_scratch(source, workspace.decoded, MIN_SAMPLES, pick=pick)
    with clock.timed("filter"):
        info, heard = decoded.info, decoded.signal
        if formants.factor != UNSHIFTED.factor:
            heard, peak = shift_to_file(
                heard, workspace.shifted, formants, progress=lambda share: progress(share, info.seconds)
            )
            info = dataclasses.replace(info, peak=peak)
            decoded.signal.remove()
        gain = loudness.input_gain((guide.info if guide else info).peak)
        precise = highpass_to_file(heard, workspace.filtered, gain)
        heard.remove()
        cuts = guide.cuts if guide else tuple(find_cuts(precise, rules))
        np.save(workspace.envelope, source_envelope(precise))
        np.save(workspace.levels, levels(precise, gain))
        signal = precise.rewritten(workspace.signal, FLOAT32)
        precise.remove()
    return Prepared(info, signal, cuts, tuple(decoded.warnings))


def reopen(record: Record, workspace: Workspace) -> Prepared:
    """Return what an interrupted conversion had prepared."""
    signal = ScratchSignal(workspace.signal, record.signal_samples, FLOAT32)
    return Prepared(record.info, signal, record.cuts, record.warnings)

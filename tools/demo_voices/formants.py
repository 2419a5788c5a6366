"""What a target is to sound like: its own speech, for some voices with the formants moved.

The formants of flite's `slt` are higher than PocketSphinx expects: it misunderstands a quarter of the words in its own
speech, twice as many as of a man's. With formants a few per cent lower, as of a somewhat longer mouth, it is understood
better, and it is still that voice. Pitch stays what it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rvc_batch.engine.formants import HOP, REACH, FormantShift
from tools.demo_voices.corpus import Corpus

__all__ = ["moved_formants", "target_waves"]

F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
QUEFRENCY_MS = 1.75  # finer than the usual: a third of the period of `slt`


def moved_formants(wave: F32, factor: float) -> F32:
    """Return speech [N] with what lies at f in its spectral envelope moved to f · factor."""
    if factor == 1.0:
        return wave
    padded = np.pad(wave.astype(np.float64), (REACH, REACH + -wave.size % HOP), mode="reflect")
    moved = FormantShift(factor, QUEFRENCY_MS).of(padded)[REACH : REACH + wave.size]
    return np.clip(moved, -1, 1).astype(np.float32)


def target_waves(corpus: Corpus, factors: dict[str, float], state: Path) -> dict[str, list[I16]]:
    """Return what each target (factors: how far its formants move) is to say [N] for each of its utterances.

    Kept in the state folder.
    """
    found = {}
    for voice, factor in factors.items():
        kept = state / "corpus" / f"{voice}.target.npz"
        if not kept.is_file():
            bar = tqdm(corpus.by_voice[voice], desc=f"target {voice}", unit="sentence", mininterval=5)
            waves = [moved_formants(u.wave, factor) for u in bar]
            unfinished = kept.with_suffix(".part.npz")
            np.savez(unfinished, **{f"{i}": np.round(wave * 32767).astype(np.int16) for i, wave in enumerate(waves)})
            unfinished.replace(kept)
        with np.load(kept) as stored:
            found[voice] = [stored[f"{i}"] for i in range(len(corpus.by_voice[voice]))]
    return found

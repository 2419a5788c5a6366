"""What the mouth does in every sentence of a target: its spectral envelope, free of the chance of single readings.

One reading shows the envelope only at its harmonics, and where the pulses happen to lie. flite reads the same sentence
at other pitches with the same timing, so the mean of several readings shows the rest. A text encoder that is taught
with it learns words instead of harmonics.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from tools.demo_voices.corpus import Corpus, Utterance
from tools.demo_voices.device import on_device
from tools.demo_voices.losses import log_envelope
from tools.demo_voices.speech import RATE_HZ, Style, speak

__all__ = ["extract_envelopes", "two_periods"]

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
READINGS = (0.9, 1.1)  # factors on f0, beside the utterance itself
WINDOW_STEP, WINDOWS, UNVOICED_WINDOW = 16, (128, 400), 256  # samples


def extract_envelopes(
    corpus: Corpus, f0: dict[str, list[F32]], sentences: list[str], state: Path
) -> dict[str, list[F16]]:
    """Return the log envelope [N_MELS, T100] of every utterance whose f0 there is; kept in the state folder.

    sentences: what `Utterance.text` counts in.

    Raises:
        FliteMissing, SpeechFailed: flite is not installed, or cannot read a sentence again.
        ValueError: it reads it at another pace.
    """
    found = {}
    for voice, tracks in f0.items():
        kept = state / "corpus" / f"{voice}.envelopes.npz"
        if not kept.is_file():
            pairs = zip(corpus.by_voice[voice], tracks, strict=True)
            bar = tqdm(pairs, desc=f"envelopes {voice}", total=len(tracks), unit="sentence", mininterval=5)
            arrays = {f"{i}": _mean_envelope(u, sentences[u.text], two_periods(f)) for i, (u, f) in enumerate(bar)}
            unfinished = kept.with_suffix(".part.npz")
            np.savez(unfinished, **arrays)  # type: ignore[arg-type]
            unfinished.replace(kept)
        with np.load(kept) as stored:
            found[voice] = [stored[f"{i}"] for i in range(len(corpus.by_voice[voice]))]
    return found


def two_periods(f0: F32) -> int:
    """Return the usual length of two periods of f0 [T] in Hz in samples, in steps, so that few windows are made."""
    voiced = f0[f0 > 0]
    if not voiced.size:
        return UNVOICED_WINDOW
    samples = 2 * SAMPLE_RATE_16K / float(np.median(voiced))
    return int(np.clip(WINDOW_STEP * round(samples / WINDOW_STEP), *WINDOWS))


def _mean_envelope(utterance: Utterance, text: str, window: int) -> F16:
    usable = utterance.spoken.wave.size // HOP_16K * HOP_16K
    style, readings = utterance.style, [_envelope(utterance, usable, window)]
    for factor in READINGS:
        again = speak(utterance.voice, text, Style(style.stretch, style.f0_factor * factor))
        if np.array_equal(again.wave, utterance.spoken.wave):
            break  # a voice that does not let its pitch be moved
        if abs(again.wave.size - utterance.spoken.wave.size) > RATE_HZ // 100:
            raise ValueError(f"{utterance.voice} reads {text!r} at another pace when its pitch is changed")
        readings.append(_envelope(replace(utterance, spoken=again), usable, window))
    mean: F16 = np.mean(readings, axis=0).astype(np.float16)
    return mean


@torch.no_grad()  # not inference mode: the tables that are made on the way serve training too
def _envelope(utterance: Utterance, samples: int, window: int) -> F32:
    wave = utterance.wave[:samples]
    padded = on_device(np.pad(wave, (0, samples - wave.size)))
    envelope: F32 = log_envelope(padded[None], torch.tensor([window]))[0].cpu().numpy()
    return envelope

"""Training batches for the synthesiser: stretches of a target's speech with content, pitch and source.

The content of a stretch is the target's own or, as often, that of another voice reading the same sentence, moved
phone by phone to the target's timing. So the text encoder learns to hear words, whoever says them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rvc_batch.engine.network_config import HOP_16K
from rvc_batch.engine.types import PitchTrack
from tools.demo_voices.alignment import aligned_source
from tools.demo_voices.corpus import Corpus, Utterance
from tools.demo_voices.device import on_device
from tools.demo_voices.envelopes import two_periods
from tools.demo_voices.features import warped

__all__ = ["Batch", "Crops", "Material", "pitch_codes"]

BEGINNING_SHARE = 0.4  # of the stretches begin with the pause before the sentence
OTHERS_SHARE = 0.85  # a conversion never hears the target itself
CODE_SPREAD = 0.5  # semitones: pitch codes are off by so much, so that the generator learns pitch from its source


@dataclass(frozen=True)
class Batch:
    """content [B, T, D] · coarse, f0 [B, T] · envelope [B, N_MELS, T] · wave, source [B, T·160] · speaker, window [B].

    f0: Hz, 0 where unvoiced; codes are off it a little. window: two periods, in samples.
    """

    content: torch.Tensor
    coarse: torch.Tensor
    f0: torch.Tensor
    envelope: torch.Tensor
    wave: torch.Tensor
    source: torch.Tensor
    speaker: torch.Tensor
    window: torch.Tensor

    def part(self, start: int, stop: int) -> Batch:
        """Return the same stretches from one frame to another."""
        frames, samples = slice(start, stop), slice(start * HOP_16K, stop * HOP_16K)
        return replace(
            self,
            content=self.content[:, frames],
            coarse=self.coarse[:, frames],
            f0=self.f0[:, frames],
            envelope=self.envelope[:, :, frames],
            wave=self.wave[:, samples],
            source=self.source[:, samples],
        )


class Material:
    """What voices are trained from.

    By voice, in the order of the corpus: f0 [T100] in Hz, 0 where unvoiced, and log envelopes [N_MELS, T100], of the
    targets; content features [T50, D] of all, once there are any.
    """

    def __init__(
        self,
        corpus: Corpus,
        f0: dict[str, list[NDArray[np.float32]]],
        envelopes: dict[str, list[NDArray[np.float16]]],
        content: dict[str, list[NDArray[np.float16]]] | None = None,
    ) -> None:
        self.corpus, self.f0, self.envelopes, self.content = corpus, f0, envelopes, content or {}
        self._places = {voice: {u.text: i for i, u in enumerate(us)} for voice, us in corpus.by_voice.items()}

    def place_alike(self, voice: str, utterance: Utterance) -> int | None:
        """Return where the text of an utterance stands among those of a voice; None unless it says the same phones."""
        place = self._places[voice].get(utterance.text)
        if place is None:
            return None
        phones = self.corpus.by_voice[voice][place].spoken.phones
        return place if np.array_equal(phones, utterance.spoken.phones) else None


class Crops:
    """Draws batches of stretches of `frames` frames from the speech of some targets."""

    def __init__(self, material: Material, targets: dict[str, int], frames: int) -> None:
        """targets: the number of each voice's speaker embedding."""
        self._material, self._targets, self._frames = material, targets, frames
        least = (frames + 2) * HOP_16K
        self._usable = {
            voice: [i for i, u in enumerate(material.corpus.by_voice[voice]) if u.spoken.wave.size >= least]
            for voice in targets
        }
        if empty := [voice for voice, usable in self._usable.items() if not usable]:
            raise ValueError(f"no sentence of {empty} is {frames} frames long; read more or longer sentences")

    def draw(self, count: int, random: np.random.Generator) -> Batch:
        """Return `count` stretches."""
        voices = list(self._targets)
        items = [self._item(voices[random.integers(len(voices))], random) for _ in range(count)]
        parts = [on_device(np.stack(part)) for part in zip(*items, strict=True)]
        return Batch(*parts)

    def _item(self, voice: str, random: np.random.Generator) -> tuple[NDArray[Any], ...]:
        place = self._usable[voice][random.integers(len(self._usable[voice]))]
        utterance, f0 = self._material.corpus.by_voice[voice][place], self._material.f0[voice][place]
        content = self._content(voice, place, random)
        last = min(f0.size, 2 * content.shape[0], utterance.spoken.wave.size // HOP_16K) - self._frames
        start = 2 * int(random.integers(last // 2 + 1))  # content frames are two of the synthesiser's
        if random.random() < BEGINNING_SHARE:
            start = 0
        stop = start + self._frames
        track = PitchTrack(np.ascontiguousarray(f0[start:stop]))
        noise = random.standard_normal(self._frames * HOP_16K).astype(np.float32)
        wave = utterance.wave[start * HOP_16K : stop * HOP_16K]
        source = aligned_source(track, wave, noise)
        envelope = self._material.envelopes[voice][place][:, start:stop].astype(np.float32)
        doubled = np.repeat(content, 2, axis=0)[start:stop]
        coarse = pitch_codes(track.f0, random)
        speaker, window = np.array(self._targets[voice]), np.array(two_periods(track.f0))
        return doubled, coarse, track.f0, envelope, wave, source, speaker, window

    def _content(self, voice: str, place: int, random: np.random.Generator) -> NDArray[np.float32]:
        material = self._material
        utterance, own = material.corpus.by_voice[voice][place], material.content[voice][place]
        if random.random() < OTHERS_SHARE:
            others = {v: material.place_alike(v, utterance) for v in material.corpus.by_voice if v != voice}
            alike = [(v, there) for v, there in others.items() if there is not None]
            if alike:
                other, there = alike[random.integers(len(alike))]
                said = material.corpus.by_voice[other][there]
                return warped(utterance, said, material.content[other][there], own.shape[0])
        return own.astype(np.float32)


def pitch_codes(f0: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.int64]:
    """Return RVC's codes of f0 [T] in Hz, off it a little."""
    off = np.float32(2 ** (CODE_SPREAD * random.standard_normal() / 12))
    return PitchTrack(f0 * off).coarse().astype(np.int64)

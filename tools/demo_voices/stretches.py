"""Training batches for content network and text encoders: anybody's speech, and what each target's mouth would do.

Crops (`crops.py`) have the timing of the target, because the wave that is wanted has it. A conversion has the timing of
the source, and no wave is wanted here; so it is the target's envelope that is moved, phone by phone, to where the
source says the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rvc_batch.engine.network_config import FRAME_RATE_HZ, SAMPLE_RATE_16K
from tools.demo_voices.augment import SPEED, disturb, level, resample
from tools.demo_voices.content import frame_times, samples_of, states
from tools.demo_voices.corpus import Utterance
from tools.demo_voices.crops import Material, pitch_codes
from tools.demo_voices.device import on_device
from tools.demo_voices.features import between

__all__ = ["Heard", "Stretches"]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
FASTER_SHARE, DISTURBED_SHARE = 0.35, 0.5  # of the stretches; a conversion mostly hears clean speech


@dataclass(frozen=True)
class Heard:
    """wave [B, N] at 16 kHz · state [B, T50] · by target: coarse [B, 2·T50], envelope [B, N_MELS, 2·T50]."""

    wave: torch.Tensor
    state: torch.Tensor
    coarse: dict[str, torch.Tensor]
    envelope: dict[str, torch.Tensor]


class Stretches:
    """Draws batches of stretches of `frames` content frames from the speech of all voices."""

    def __init__(self, material: Material, targets: tuple[str, ...], frames: int) -> None:
        """targets: voices whose envelopes there are.

        Raises:
            ValueError: no sentence is long enough and said by all targets with the same phones.
        """
        self._material, self._targets, self._frames = material, targets, frames
        self._samples = samples_of(frames)
        self._usable = {
            voice: usable
            for voice, utterances in material.corpus.by_voice.items()
            if (usable := [u for u in utterances if u.spoken.wave.size > self._samples and self._is_shared(u)])
        }
        if not self._usable:
            raise ValueError(f"no sentence is {frames} content frames long and said alike by {', '.join(targets)}")

    def draw(self, count: int, random: np.random.Generator) -> Heard:
        """Return `count` stretches."""
        voices = list(self._usable)
        items = [self._item(self._usable[voices[random.integers(len(voices))]], random) for _ in range(count)]
        waves, state, coarse, envelopes = zip(*items, strict=True)

        def by_target(parts: tuple[list[NDArray[np.generic]], ...]) -> dict[str, torch.Tensor]:
            return {
                v: on_device(np.stack(part)) for v, part in zip(self._targets, zip(*parts, strict=True), strict=True)
            }

        return Heard(on_device(np.stack(waves)), on_device(np.stack(state)), by_target(coarse), by_target(envelopes))

    def _item(self, utterances: list[Utterance], random: np.random.Generator) -> tuple[F32, I64, list[I64], list[F32]]:
        utterance = utterances[random.integers(len(utterances))]
        wave, factor = utterance.wave, 1.0
        if random.random() < FASTER_SHARE:
            factor = min(float(np.exp(random.uniform(*np.log(SPEED)))), (wave.size - 1) / (self._samples + 1))
        needed = int(np.ceil(factor * self._samples))
        start = int(random.integers(wave.size - needed + 1))
        wave = resample(wave[start : start + needed], factor)[: self._samples]
        wave = np.pad(wave, (0, self._samples - wave.size))
        wave = disturb(wave, random) if random.random() < DISTURBED_SHARE else level(wave, random)
        first = start / SAMPLE_RATE_16K
        state = states(utterance, first + factor * frame_times(self._frames))
        moments = first + factor * (np.arange(2 * self._frames) + 0.5) / FRAME_RATE_HZ
        said = [self._of_target(target, utterance, moments, random) for target in self._targets]
        coarse, envelopes = zip(*said, strict=True)
        return wave, state, list(coarse), list(envelopes)

    def _of_target(
        self, target: str, utterance: Utterance, moments: NDArray[np.float64], random: np.random.Generator
    ) -> tuple[I64, F32]:
        """Return pitch codes and envelope of a target where it says what the utterance says at some moments (s)."""
        place = self._material.place_alike(target, utterance)
        assert place is not None  # or it were not usable
        if target != utterance.voice:
            moments = utterance.moments_in(self._material.corpus.by_voice[target][place], moments)
        envelope, f0 = self._material.envelopes[target][place], self._material.f0[target][place]
        exact = moments * FRAME_RATE_HZ - 0.5
        nearest = f0[np.rint(exact).astype(np.int64).clip(0, f0.size - 1)]
        return pitch_codes(nearest, random), np.ascontiguousarray(between(envelope.T, exact).T)

    def _is_shared(self, utterance: Utterance) -> bool:
        return all(self._material.place_alike(target, utterance) is not None for target in self._targets)

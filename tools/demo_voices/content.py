"""The content network: HuBERT's architecture, small, trained to say which third of which phone every frame is.

Two heads share the loss: on the last layer, which v2 voices read, and on the projection of layer 9, which v1 voices
read. The voices of the corpus, their styles and the augmentation leave little of the speaker in what is needed for
that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.network_config import SAMPLE_RATE_16K, HubertConfig
from rvc_batch.engine.torch_nets.hubert import Hubert
from tools.demo_voices.augment import SPEED, disturb, resample
from tools.demo_voices.corpus import Corpus, Utterance
from tools.demo_voices.device import on_device
from tools.demo_voices.loop import Stage, rate_at, run_stage, set_rate
from tools.demo_voices.settings import Recipe
from tools.demo_voices.speech import PHONES

__all__ = [
    "ContentTrainer",
    "frame_times",
    "layers",
    "naming_loss",
    "phone_accuracy",
    "samples_of",
    "states",
    "train_content",
]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

THIRDS = 3
N_STATES = 1 + THIRDS * (len(PHONES) - 1)  # silence is one state
V1_WEIGHT = 0.4
PEAK_RATE = 1.2e-3
RECEPTIVE_HALF = 200  # samples: half of the 400 that a frame of HuBERT hears
HOP = 320


class ContentTrainer(nn.Module):
    """The network with the two heads that only training needs."""

    def __init__(self, config: HubertConfig, network: Hubert | None = None) -> None:
        """network: one that is trained; without it, a new one."""
        super().__init__()
        self.network = network or Hubert(config)
        self.head_v2 = nn.Linear(config.hidden, N_STATES)
        self.head_v1 = nn.Linear(config.projection, N_STATES)
        self._v1_layer = RVC_2023.v1_layer

    def forward(self, waves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return features [B, T50, D] and the logits [B, T50, N_STATES] of both heads for waves [B, N] at 16 kHz."""
        depths = layers(self.network, waves)
        return depths[-1], self.head_v2(depths[-1]), self.head_v1(self.network.final_proj(depths[self._v1_layer]))


def layers(network: Hubert, waves: torch.Tensor) -> list[torch.Tensor]:
    """Return what the transformer is given and what each of its layers returns, [B, T50, D], for waves [B, N]."""
    x = waves[:, None]
    for layer in network.feature_extractor.conv_layers:
        x = layer(x)
    return list(network.encoder(network.feature_projection(x.transpose(1, 2))))


def frame_times(frames: int) -> NDArray[np.float64]:
    """Return the middle of each content frame in seconds."""
    return (HOP * np.arange(frames) + RECEPTIVE_HALF) / SAMPLE_RATE_16K


def samples_of(frames: int) -> int:
    """Return how many samples give so many content frames."""
    return HOP * (frames - 1) + 2 * RECEPTIVE_HALF


def states(utterance: Utterance, times: NDArray[np.float64]) -> I64:
    """Return the state at each time (s): 0 in silence, else one of three per phone."""
    place, gone = utterance.phone_at(times)
    phones = utterance.spoken.phones[place].astype(np.int64)
    state: I64 = np.where(phones == 0, 0, 1 + THIRDS * (phones - 1) + (gone * THIRDS).astype(np.int64))
    return state


def train_content(recipe: Recipe, corpus: Corpus, stage: Stage) -> ContentTrainer:
    """Train the network, or go on; returns it in evaluation mode."""
    torch.manual_seed(recipe.seed)
    trainer = ContentTrainer(recipe.hubert)
    optimiser = torch.optim.AdamW(trainer.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)

    def step(number: int, random: np.random.Generator) -> Mapping[str, float]:
        set_rate(optimiser, rate_at(number, recipe.content_steps, PEAK_RATE))
        waves, labels = _batch(recipe, corpus, random)
        _, v2, v1 = trainer(waves)
        loss = naming_loss(v2, v1, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trainer.parameters(), 1.0)
        optimiser.step()
        hits = (v2.detach().argmax(-1) == labels).float().mean()
        return {"naming": loss.item(), "hits": hits.item()}

    run_stage(stage, {"trainer": trainer, "optimiser": optimiser}, step)
    return trainer.eval()


def naming_loss(v2: torch.Tensor, v1: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Return how badly the logits [B, T50, N_STATES] of both heads name the states [B, T50], added."""
    losses = [
        functional.cross_entropy(logits.flatten(0, 1), state.flatten(), label_smoothing=0.05) for logits in (v2, v1)
    ]
    return losses[0] + V1_WEIGHT * losses[1]


@torch.inference_mode()
def phone_accuracy(trainer: ContentTrainer, utterance: Utterance) -> float:
    """Return the share of frames, silence apart, whose phone the last layer's head names rightly."""
    _, logits, _ = trainer(on_device(utterance.wave)[None])
    truth = states(utterance, frame_times(logits.shape[1]))
    said = logits[0].argmax(-1).cpu().numpy()
    is_speech = truth > 0
    return float(np.mean((said[is_speech] - 1) // THIRDS == (truth[is_speech] - 1) // THIRDS))


def _batch(recipe: Recipe, corpus: Corpus, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    samples = int(random.uniform(*recipe.content_seconds) * SAMPLE_RATE_16K)
    frames = recipe.hubert.frames(samples)
    voices = list(corpus.by_voice)
    items = [
        _item(corpus.by_voice[voices[random.integers(len(voices))]], samples, frames, random)
        for _ in range(recipe.content_batch)
    ]
    waves, labels = zip(*items, strict=True)
    return on_device(np.stack(waves)), on_device(np.stack(labels))


def _item(utterances: list[Utterance], samples: int, frames: int, random: np.random.Generator) -> tuple[F32, I64]:
    """Return a stretch of one speaker's sentences, one after the other, disturbed."""
    factor = float(np.exp(random.uniform(*np.log(SPEED)))) if random.random() < 0.7 else 1.0
    needed = int(samples * factor) + HOP
    waves, starts, chosen, length = list[F32](), list[int](), list[Utterance](), 0
    while length < 2 * needed:  # room for any offset
        utterance = utterances[random.integers(len(utterances))]
        starts.append(length)
        chosen.append(utterance)
        waves.append(utterance.wave)
        length += waves[-1].size
    offset = int(random.integers(length - needed))
    wave = resample(np.concatenate(waves)[offset : offset + needed], factor)[:samples]
    wave = np.pad(wave, (0, samples - wave.size))
    moments = offset / SAMPLE_RATE_16K + frame_times(frames) * factor
    place = np.searchsorted(np.array(starts) / SAMPLE_RATE_16K, moments, side="right") - 1
    labels = np.zeros(frames, np.int64)
    for i in np.unique(place):
        here = place == i
        labels[here] = states(chosen[i], moments[here] - starts[i] / SAMPLE_RATE_16K)
    return disturb(wave, random), labels

"""Content network and text encoders, trained together: from anybody's speech to what the mouths of the targets do.

A network that only names phones (`content.py`) has no reason to tell what a voice needs beyond them: how a phone begins
and ends, what lies between two. Here the same features must serve the text encoders of all targets, whoever speaks, so
nothing of the speaker is of use in them. Phones are still named beside it.

Nothing runs at audio rate: the envelope is read off the latent by a linear layer that is thrown away. That of a given
voice is fitted to its latents and fixed, so that they keep the meaning that they have for its generator.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tools.demo_voices.content import ContentTrainer, layers, naming_loss
from tools.demo_voices.loop import Stage, rate_at, run_stage, set_rate
from tools.demo_voices.losses import envelope_loss
from tools.demo_voices.settings import Recipe
from tools.demo_voices.stretches import Heard, Stretches
from tools.demo_voices.voices import VoiceTrainer

__all__ = ["fit_reader", "train_acoustic"]

RATE = 8e-4
CONTENT_SHARE = 0.5  # of the learning rate: it has learnt before
NAMING_WEIGHT = 0.3
READER_BATCHES = 20  # that the reader of a given voice is fitted to


def train_acoustic(
    recipe: Recipe, stretches: Stretches, stage: Stage, content: ContentTrainer, voices: Mapping[str, VoiceTrainer]
) -> None:
    """Train content network, text encoders and flows in place, and readers unless they are fixed, or go on.

    voices: by target; two targets may share one.
    """
    own = {id(voice): voice for voice in voices.values()}.values()
    encoders = [p for voice in own for p in voice.latent_parameters() if p.requires_grad]
    groups = [{"params": list(content.parameters()), "share": CONTENT_SHARE}, {"params": encoders, "share": 1.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    content.requires_grad_(True).train()

    def step(number: int, random: np.random.Generator) -> Mapping[str, float]:
        set_rate(optimiser, rate_at(number, stage.steps, RATE))
        heard = stretches.draw(recipe.acoustic_batch, random)
        features, *logits = content(heard.wave)
        naming = naming_loss(*logits, heard.state)
        total, losses = NAMING_WEIGHT * naming, {"naming": naming.item()}
        for target, voice in voices.items():
            made = voice.reader(_latent(recipe, voice, target, features, heard))
            envelope = envelope_loss(made, heard.envelope[target])
            total = total + envelope
            losses[target] = envelope.item()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        for group in groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()
        return losses

    parts = {f"voice{i}": voice for i, voice in enumerate(own)}
    run_stage(stage, {"content": content, **parts, "optimiser": optimiser}, step)
    content.eval()


@torch.no_grad()
def fit_reader(recipe: Recipe, stretches: Stretches, content: ContentTrainer, voice: VoiceTrainer, target: str) -> None:
    """Fit the reader to the latents that a given voice makes, by least squares, in place."""
    torch.manual_seed(recipe.seed)
    random, latents, envelopes = np.random.default_rng(recipe.seed), [], []
    for _ in range(READER_BATCHES):
        heard = stretches.draw(recipe.acoustic_batch, random)
        features = layers(content.network, heard.wave)[-1]
        latents.append(_latent(recipe, voice, target, features, heard).transpose(1, 2).flatten(0, 1))
        envelopes.append(heard.envelope[target].transpose(1, 2).flatten(0, 1))
    rows = functional.pad(torch.cat(latents), (0, 1), value=1.0)
    fitted = torch.linalg.lstsq(rows, torch.cat(envelopes)).solution
    voice.reader.weight.copy_(fitted[:-1].T[:, :, None])
    voice.reader.bias.copy_(fitted[-1])


def _latent(recipe: Recipe, voice: VoiceTrainer, target: str, features: torch.Tensor, heard: Heard) -> torch.Tensor:
    """Return z [B, C, 2·T50] of a voice for content features [B, T50, D]."""
    speaker = torch.full(features.shape[:1], recipe.targets.index(target))
    return voice.latent(features.repeat_interleave(2, dim=1), heard.coarse[target], speaker)

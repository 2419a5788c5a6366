"""The voices: one synthesiser for all targets first, then one of its own for each.

Text encoder and flow have learnt their words by then (`acoustic.py`). *base*: with the generator, end to end, spectral
losses first and discriminators later. *NAME*: the base, or a voice that is given, tuned to one target.

The latent is made in training as it is in inference (prior, noise, flow), so there is no posterior encoder to
disagree with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rvc_batch.engine.network_config import SAMPLE_RATE_16K, SynthesizerConfig
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer
from tools.demo_voices.crops import Batch, Crops
from tools.demo_voices.discriminators import Discriminators
from tools.demo_voices.hearing import Hearing
from tools.demo_voices.loop import Stage, rate_at, run_stage, set_rate
from tools.demo_voices.losses import (
    N_MELS,
    MultiResolutionLoss,
    adversarial_loss,
    discriminator_loss,
    envelope_loss,
    feature_loss,
    grid_loss,
    log_envelope,
    log_mel,
    pause_loss,
    period_loss,
    phase_loss,
)
from tools.demo_voices.settings import Recipe
from tools.demo_voices.synthesis import generate, latent, new_synthesizer

__all__ = [
    "TUNE_RATE",
    "WAVE_RATE",
    "VoiceTrainer",
    "new_trainer",
    "synthesizer_config",
    "train_waves",
]

WAVE_RATE = 6e-4
TUNE_RATE = 3e-4
WEIGHTS = {
    "latent": 3.0,
    "envelope": 5.0,
    "mel": 5.0,
    "spectra": 1.0,
    "phase": 2.0,
    "heard": 2.0,
    "grid": 4.0,
    "pause": 2.0,
    "period": 4.0,
    "adversarial": 1.0,
    "inside": 2.0,
}
BEGINNING_SHARE = 0.3  # of the steps generate the beginning of each stretch, where pauses are likely
LATENT_SHARE = 0.1  # of the learning rate, for what has learnt its words by itself before
CONTEXT = 3  # times as many frames are encoded as generated


class VoiceTrainer(nn.Module):
    """The synthesiser and the linear layer that reads the envelope off its latent, which only training needs."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.network: Synthesizer = new_synthesizer(config)
        self.reader = nn.Conv1d(config.inter_channels, N_MELS, 1)
        nn.init.constant_(self.reader.bias, -5.0)

    def latent_parameters(self) -> list[nn.Parameter]:
        """Return all that makes the latent and reads it: everything but the generator."""
        parts = (self.network.enc_p, self.network.flow, self.network.emb_g, self.reader)
        return [parameter for part in parts for parameter in part.parameters()]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return generator and the rest as an optimiser takes them, with their shares of the learning rate."""
        generator = list(self.network.dec.parameters())
        return [{"params": generator, "share": 1.0}, {"params": self.latent_parameters(), "share": LATENT_SHARE}]

    def latent(self, content: torch.Tensor, coarse: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        """Return z [B, C, T] of content [B, T, D], pitch codes [B, T] and speakers [B], with fresh noise."""
        shape = (content.shape[0], self.reader.in_channels, content.shape[1])
        return latent(self.network, content, coarse, speaker, torch.randn(shape))


def synthesizer_config(recipe: Recipe, n_speakers: int) -> SynthesizerConfig:
    """Return the config of the voices."""
    sizes = recipe.voice
    return SynthesizerConfig(
        version="v2",
        feature_dim=recipe.hubert.hidden,
        has_f0=True,
        sample_rate=SAMPLE_RATE_16K,
        inter_channels=sizes.inter,
        hidden_channels=sizes.hidden,
        filter_channels=sizes.ffn,
        n_heads=sizes.heads,
        n_layers=sizes.layers,
        kernel_size=3,
        resblock_kernels=sizes.resblock_kernels,
        resblock_dilations=sizes.resblock_dilations,
        upsample_rates=sizes.upsample_rates,
        upsample_initial_channels=sizes.initial_channels,
        upsample_kernels=sizes.upsample_kernels,
        n_speakers=n_speakers,
        gin_channels=sizes.speaker,
    )


def new_trainer(recipe: Recipe) -> VoiceTrainer:
    """Return an untrained synthesiser for all targets."""
    torch.manual_seed(recipe.seed)
    return VoiceTrainer(synthesizer_config(recipe, len(recipe.targets)))


def train_waves(
    recipe: Recipe,
    crops: Crops,
    stage: Stage,
    trainer: VoiceTrainer,
    opponents: Discriminators,
    hearing: Hearing,
    *,
    quiet_steps: int,
    peak: float,
) -> None:
    """Train the whole synthesiser and the discriminators end to end in place, or go on.

    quiet_steps: without discriminators. peak: the highest learning rate.
    """
    spectral = MultiResolutionLoss()
    optimiser = torch.optim.AdamW(trainer.parameter_groups(), lr=peak, betas=(0.8, 0.99), weight_decay=0.01)
    adversary = torch.optim.AdamW(opponents.parameters(), lr=peak, betas=(0.8, 0.99), weight_decay=0.01)

    def step(number: int, random: np.random.Generator) -> Mapping[str, float]:
        rate = rate_at(number, stage.steps, peak)
        set_rate(optimiser, rate)
        set_rate(adversary, rate)
        batch = crops.draw(recipe.wave_batch, random)
        made, part, read = _generated(recipe, trainer, batch, random)
        wanted = part.wave
        losses = {
            "latent": envelope_loss(read, batch.envelope),
            "envelope": envelope_loss(log_envelope(made, part.window), log_envelope(wanted, part.window)),
            "mel": functional.l1_loss(log_mel(made), log_mel(wanted)),
            "spectra": spectral(made, wanted),
            "phase": phase_loss(made, wanted, part.source),
            "heard": hearing(made, wanted),
            "grid": grid_loss(made, wanted),
            "pause": pause_loss(made, wanted),
            "period": period_loss(made, wanted, part.f0),
        }
        rivalry = {}
        if number >= quiet_steps:
            rivalry["opponents"] = _train_opponents(opponents, adversary, made.detach(), wanted)
            opponents.requires_grad_(False)
            with torch.no_grad():
                _, inside_wanted = opponents(wanted)
            scores, inside = opponents(made)
            opponents.requires_grad_(True)
            losses["adversarial"] = adversarial_loss(scores)
            losses["inside"] = feature_loss(inside_wanted, inside)
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(trainer.parameters(), 5.0)
        optimiser.step()
        return {name: loss.item() for name, loss in (losses | rivalry).items()}

    parts = {"trainer": trainer, "opponents": opponents, "optimiser": optimiser, "adversary": adversary}
    run_stage(stage, parts, step)


def context_frames(recipe: Recipe) -> int:
    """Return how many frames the text encoder sees for the few that are generated."""
    return CONTEXT * recipe.wave_frames


def _generated(
    recipe: Recipe, trainer: VoiceTrainer, batch: Batch, random: np.random.Generator
) -> tuple[torch.Tensor, Batch, torch.Tensor]:
    """Return generated audio [B, wave_frames · 160] of a part of each stretch, the truth of that part, and the reading.

    That is of the envelope, off the latent of the whole stretch.
    """
    z = trainer.latent(batch.content, batch.coarse, batch.speaker)
    start = int(random.integers(batch.content.shape[1] - recipe.wave_frames + 1))
    if random.random() < BEGINNING_SHARE:
        start = 0
    part = batch.part(start, start + recipe.wave_frames)
    speaker = trainer.network.emb_g(batch.speaker)[:, :, None]
    made = generate(trainer.network.dec, z[:, :, start : start + recipe.wave_frames], part.source, speaker)
    return made, part, trainer.reader(z)


def _train_opponents(
    opponents: Discriminators, adversary: torch.optim.Optimizer, made: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    loss = discriminator_loss(opponents(wanted)[0], opponents(made)[0])
    adversary.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(opponents.parameters(), 5.0)
    adversary.step()
    return loss.detach()

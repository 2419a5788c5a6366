"""The synthesiser of one voice in torch: text encoder, flow and generator under the key names of the checkpoints.

Its three methods are the stages of inference; the caller draws the noise between the first and the second. Sequences
are [1, C, T]. Twin of mlx_nets/synthesizer.py.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_batch.engine.network_config import SynthesizerConfig
from rvc_batch.engine.torch_nets.encoder import TextEncoder
from rvc_batch.engine.torch_nets.flow import Flow
from rvc_batch.engine.torch_nets.generator import Generator
from rvc_batch.engine.torch_nets.layers import Embedding, frame_mask
from rvc_batch.engine.torch_nets.refinegan import RefineGenerator
from rvc_batch.engine.types import NO_ORIGIN, NoiseOrigin

__all__ = ["Synthesizer"]


class Synthesizer(nn.Module):
    """VITS without its posterior encoder (Kim et al. 2021), as RVC exports it."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.enc_p = TextEncoder(config)
        self.flow = Flow(config)
        self.dec = RefineGenerator(config) if config.is_refinegan else Generator(config)
        self.emb_g = Embedding(config.n_speakers, config.gin_channels)

    def prior(self, content: torch.Tensor, coarse: torch.Tensor, valid: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log standard deviation [1, C, T] for content [T, D] and pitch codes [T]."""
        mean, logs = self.enc_p(content, coarse, valid)
        return mean, logs

    def reverse_flow(self, latent: torch.Tensor, speaker: int, valid: int) -> torch.Tensor:
        """Return z [1, C, T] for a sample of the prior; both are zero from frame `valid` on."""
        mask = frame_mask(latent.shape[2], valid, latent.dtype)
        z: torch.Tensor = self.flow(latent * mask, mask, self._speaker(speaker))
        return z

    def generate(
        self, z: torch.Tensor, source: torch.Tensor, speaker: int, origin: NoiseOrigin = NO_ORIGIN
    ) -> torch.Tensor:
        """Return audio [T·hop] for z [1, C, T] and source [T·hop]; origin is that of RefineGAN's noise."""
        inputs = [z, source, self._speaker(speaker)]
        if isinstance(self.dec, RefineGenerator):
            inputs.append(torch.tensor([origin.key, origin.frame]))
        audio: torch.Tensor = self.dec(*inputs)
        return audio

    def _speaker(self, speaker: int) -> torch.Tensor:
        y: torch.Tensor = self.emb_g(torch.tensor([speaker]))
        return y[:, :, None]  # [1, G, 1]

"""The synthesiser of one voice in MLX: text encoder, flow and generator under the key names of the checkpoints.

Its three methods are the stages of inference; the caller draws the noise between the first and the second. Sequences
are [T, C]. Twin of torch_nets/synthesizer.py.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.encoder import TextEncoder
from rvc_batch.engine.mlx_nets.flow import Flow
from rvc_batch.engine.mlx_nets.generator import Generator
from rvc_batch.engine.mlx_nets.layers import Embedding, frame_mask, fused
from rvc_batch.engine.mlx_nets.refinegan import RefineGenerator
from rvc_batch.engine.network_config import SynthesizerConfig
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
        self._reverse_flow, self._generate = fused(self.flow), fused(self.dec)

    def prior(self, content: mx.array, coarse: mx.array, valid: int) -> tuple[mx.array, mx.array]:
        """Return mean and log standard deviation [T, C] for content [T, D] and pitch codes [T]."""
        mean, logs = self.enc_p(content, coarse, valid)
        return mean, logs

    def reverse_flow(self, latent: mx.array, speaker: int, valid: int) -> mx.array:
        """Return z [T, C] for a sample of the prior; both are zero from frame `valid` on."""
        mask = frame_mask(latent.shape[0], valid, latent.dtype)
        z: mx.array = self._reverse_flow(latent * mask, mask, self._speaker(speaker))
        return z

    def generate(self, z: mx.array, source: mx.array, speaker: int, origin: NoiseOrigin = NO_ORIGIN) -> mx.array:
        """Return audio [T·hop] for z [T, C] and source [T·hop]; origin is that of RefineGAN's noise."""
        inputs = [z, source, self._speaker(speaker)]
        if isinstance(self.dec, RefineGenerator):
            inputs.append(mx.array([origin.key, origin.frame], mx.uint32))
        audio: mx.array = self._generate(*inputs)
        return audio

    def _speaker(self, speaker: int) -> mx.array:
        vector: mx.array = self.emb_g(mx.array([speaker]))  # [1, G]
        return vector

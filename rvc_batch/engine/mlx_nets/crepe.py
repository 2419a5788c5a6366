"""CREPE (Kim et al. 2018) in MLX: six convolutions over 64 ms of wave, a salience for 360 pitches.

Every frame is computed by itself: sequences are [B, L, C], frames, time within one, channels. Twin of
torch_nets/crepe.py. Source: torchcrepe model.py @ 0.0.24.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import BatchNorm2d, FrameConv1d, Linear, larger_of_pairs
from rvc_batch.engine.network_config import (
    CREPE_KERNELS,
    CREPE_NORM_EPS,
    CREPE_PADDINGS,
    CREPE_STRIDES,
    CrepeConfig,
)

__all__ = ["Crepe"]


class Crepe(nn.Module):
    """Normalised frames [B, 1024] → salience [B, bins] in 0–1."""

    def __init__(self, config: CrepeConfig) -> None:
        super().__init__()
        inputs = 1
        for i, outputs in enumerate(config.channels):
            sizes = CREPE_KERNELS[i], CREPE_STRIDES[i], CREPE_PADDINGS[i]
            self[f"conv{i + 1}"] = FrameConv1d(inputs, outputs, *sizes)
            self[f"conv{i + 1}_BN"] = BatchNorm2d(outputs, CREPE_NORM_EPS)
            inputs = outputs
        self.classifier = Linear(config.flat, config.n_bins)
        self._layers = len(config.channels)

    def __call__(self, frames: mx.array) -> mx.array:
        x = frames[:, :, None]
        for i in range(self._layers):
            convolve, normalise = self[f"conv{i + 1}"], self[f"conv{i + 1}_BN"]
            x = convolve(x)
            x = larger_of_pairs(normalise(mx.maximum(x, 0)))
        return mx.sigmoid(self.classifier(x.reshape(x.shape[0], -1)))

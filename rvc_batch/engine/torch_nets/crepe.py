"""CREPE (Kim et al. 2018) in torch: six convolutions over 64 ms of wave, a salience for 360 pitches.

Every frame is computed by itself: sequences are [B, C, L], frames, channels, time within one. Twin of
mlx_nets/crepe.py. Source: torchcrepe model.py @ 0.0.24.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_batch.engine.network_config import (
    CREPE_KERNELS,
    CREPE_NORM_EPS,
    CREPE_PADDINGS,
    CREPE_STRIDES,
    CrepeConfig,
)
from rvc_batch.engine.torch_nets.layers import BatchNorm2d, FrameConv1d, Linear, larger_of_pairs

__all__ = ["Crepe"]


class Crepe(nn.Module):
    """Normalised frames [B, 1024] → salience [B, bins] in 0–1."""

    def __init__(self, config: CrepeConfig) -> None:
        super().__init__()
        inputs = 1
        for i, outputs in enumerate(config.channels):
            sizes = CREPE_KERNELS[i], CREPE_STRIDES[i], CREPE_PADDINGS[i]
            self.add_module(f"conv{i + 1}", FrameConv1d(inputs, outputs, *sizes))
            self.add_module(f"conv{i + 1}_BN", BatchNorm2d(outputs, CREPE_NORM_EPS))
            inputs = outputs
        self.classifier = Linear(config.flat, config.n_bins)
        self._layers = len(config.channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames[:, None]
        for i in range(self._layers):
            convolve, normalise = self.get_submodule(f"conv{i + 1}"), self.get_submodule(f"conv{i + 1}_BN")
            x = convolve(x)
            x = larger_of_pairs(normalise(torch.relu(x)[..., None])[..., 0])
        return torch.sigmoid(self.classifier(x.transpose(1, 2).flatten(1)))

"""FCPE (CNChTu, 2023) in torch: two convolutions over log-mel, six conformer layers without attention, a salience.

All it sees beyond a finite reach are the statistics of its one group norm, which spans the whole time. They are
arguments here, so that a long signal can be computed in tiles and gives what it gives at once. Sequences are [1, C, T].
Twin of mlx_nets/fcpe.py. Source: torchfcpe models.py, model_conformer_naive.py @ 0.0.4.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_batch.engine.network_config import FCPE_GROUPS, LAYER_NORM_EPS, FcpeConfig
from rvc_batch.engine.torch_nets.layers import GLU, Conv1d, Identity, LayerNorm, LeakyReLU, Linear, SiLU

__all__ = ["Conformer", "DepthWiseConv1d", "Encoder", "EncoderLayer", "Fcpe", "GivenGroupNorm"]


class GivenGroupNorm(nn.Module):
    """A group norm whose mean and variance of each group are given."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden))
        self.bias = nn.Parameter(torch.zeros(config.hidden))

    def forward(self, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        width = x.shape[1] // FCPE_GROUPS
        scale = self.weight * torch.rsqrt(variance + LAYER_NORM_EPS).repeat_interleave(width)
        return x * scale[:, None] + (self.bias - mean.repeat_interleave(width) * scale)[:, None]


class DepthWiseConv1d(nn.Module):
    """A convolution along time, each channel by itself."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.conv = Conv1d(config.inner, config.inner, config.kernel, padding=config.kernel // 2, groups=config.inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


class Conformer(nn.Module):
    """Norm, a gated widening, a convolution along time, and back."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                LayerNorm(config.hidden, LAYER_NORM_EPS),
                Identity(),
                Conv1d(config.hidden, 2 * config.inner, 1),
                GLU(1),
                DepthWiseConv1d(config),
                SiLU(),
                Conv1d(config.inner, config.hidden, 1),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm, *steps = self.net
        x = norm(x.transpose(1, 2)).transpose(1, 2)
        for step in steps:
            x = step(x)
        return x


class EncoderLayer(nn.Module):
    """A conformer beside a shortcut."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.conformer = Conformer(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.conformer(x)
        return y


class Encoder(nn.Module):
    """All layers."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.encoder_layers:
            x = layer(x)
        return x


class Fcpe(nn.Module):
    """Log-mel [T, M] → what the group norm sees [1, C, T] → salience [1, T, bins] in 0–1."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.input_stack = nn.ModuleList(
            [
                Conv1d(config.n_mels, config.hidden, 3, padding=1),
                GivenGroupNorm(config),
                LeakyReLU(),
                Conv1d(config.hidden, config.hidden, 3, padding=1),
            ]
        )
        self.net = Encoder(config)
        self.norm = LayerNorm(config.hidden, LAYER_NORM_EPS)
        self.output_proj = Linear(config.hidden, config.n_bins)

    def stem(self, mel: torch.Tensor) -> torch.Tensor:
        """Return what the group norm takes its statistics of, [1, C, T], for log-mel [T, M]."""
        y: torch.Tensor = self.input_stack[0](mel.T[None])
        return y

    def salience(self, stem: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Return the salience [1, T, bins] for `stem` [1, C, T] and its groups' statistics over the whole, [G] each."""
        _, normalise, rectify, convolve = self.input_stack
        x = self.net(convolve(rectify(normalise(stem, mean, variance))))
        return torch.sigmoid(self.output_proj(self.norm(x.transpose(1, 2))))

"""FCPE (CNChTu, 2023) in MLX: two convolutions over log-mel, six conformer layers without attention, a salience.

All it sees beyond a finite reach are the statistics of its one group norm, which spans the whole time. They are
arguments here, so that a long signal can be computed in tiles and gives what it gives at once. Sequences are [T, C].
Twin of torch_nets/fcpe.py. Source: torchfcpe models.py, model_conformer_naive.py @ 0.0.4.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import GLU, Conv1d, Identity, LayerNorm, LeakyReLU, Linear, SiLU
from rvc_batch.engine.network_config import FCPE_GROUPS, LAYER_NORM_EPS, FcpeConfig

__all__ = ["Conformer", "DepthWiseConv1d", "Encoder", "EncoderLayer", "Fcpe", "GivenGroupNorm"]


class GivenGroupNorm(nn.Module):
    """A group norm whose mean and variance of each group are given."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.weight = mx.ones((config.hidden,))
        self.bias = mx.zeros((config.hidden,))

    def __call__(self, x: mx.array, mean: mx.array, variance: mx.array) -> mx.array:
        width = x.shape[1] // FCPE_GROUPS
        scale = self.weight * mx.repeat(mx.rsqrt(variance + LAYER_NORM_EPS), width)
        return x * scale + (self.bias - mx.repeat(mean, width) * scale)


class DepthWiseConv1d(nn.Module):
    """A convolution along time, each channel by itself."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.conv = Conv1d(config.inner, config.inner, config.kernel, padding=config.kernel // 2, groups=config.inner)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(x)


class Conformer(nn.Module):
    """Norm, a gated widening, a convolution along time, and back."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.net = [
            LayerNorm(config.hidden, LAYER_NORM_EPS),
            Identity(),
            Conv1d(config.hidden, 2 * config.inner, 1),
            GLU(),
            DepthWiseConv1d(config),
            SiLU(),
            Conv1d(config.inner, config.hidden, 1),
        ]

    def __call__(self, x: mx.array) -> mx.array:
        for step in self.net:
            x = step(x)
        return x


class EncoderLayer(nn.Module):
    """A conformer beside a shortcut."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.conformer = Conformer(config)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.conformer(x)


class Encoder(nn.Module):
    """All layers."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.encoder_layers = [EncoderLayer(config) for _ in range(config.n_layers)]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.encoder_layers:
            x = layer(x)
        return x


class Fcpe(nn.Module):
    """Log-mel [T, M] → what the group norm sees [T, C] → salience [T, bins] in 0–1."""

    def __init__(self, config: FcpeConfig) -> None:
        super().__init__()
        self.input_stack = [
            Conv1d(config.n_mels, config.hidden, 3, padding=1),
            GivenGroupNorm(config),
            LeakyReLU(),
            Conv1d(config.hidden, config.hidden, 3, padding=1),
        ]
        self.net = Encoder(config)
        self.norm = LayerNorm(config.hidden, LAYER_NORM_EPS)
        self.output_proj = Linear(config.hidden, config.n_bins)

    def stem(self, mel: mx.array) -> mx.array:
        """Return what the group norm takes its statistics of, [T, C], for log-mel [T, M]."""
        y: mx.array = self.input_stack[0](mel)
        return y

    def salience(self, stem: mx.array, mean: mx.array, variance: mx.array) -> mx.array:
        """Return the salience [T, bins] for `stem` [T, C] and the statistics of its groups over the whole, [G] each."""
        _, normalise, rectify, convolve = self.input_stack
        x = self.net(convolve(rectify(normalise(stem, mean, variance))))
        return mx.sigmoid(self.output_proj(self.norm(x)))

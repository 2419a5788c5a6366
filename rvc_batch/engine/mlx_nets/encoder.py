"""The text encoder of the synthesiser in MLX: content features and pitch codes → the prior of the latent.

Sequences are [T, C]. Twin of torch_nets/encoder.py. Source: RVC infer/module/models.py and attentions.py @ 4338f12.
"""

from __future__ import annotations

import math

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import Conv1d, Embedding, Linear, frame_mask, leaky_relu, relative_attention
from rvc_batch.engine.network_config import (
    DECODER_SLOPE,
    LAYER_NORM_EPS,
    PITCH_CODES,
    RELATIVE_WINDOW,
    SynthesizerConfig,
)

__all__ = ["ChannelNorm", "Encoder", "FeedForward", "RelativeAttention", "TextEncoder"]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [T, C], under the names of the checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = mx.ones((channels,))
        self.beta = mx.zeros((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.gamma, self.beta, LAYER_NORM_EPS)


class RelativeAttention(nn.Module):
    """Multi-head self-attention with learnt terms for the ±10 nearest frames, shared by the heads."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, near = config.hidden_channels, (1, 2 * RELATIVE_WINDOW + 1, config.hidden_channels // config.n_heads)
        self.conv_q = Conv1d(channels, channels, 1)
        self.conv_k = Conv1d(channels, channels, 1)
        self.conv_v = Conv1d(channels, channels, 1)
        self.conv_o = Conv1d(channels, channels, 1)
        self.emb_rel_k = mx.zeros(near)
        self.emb_rel_v = mx.zeros(near)
        self._heads = config.n_heads

    def __call__(self, x: mx.array, valid: int) -> mx.array:
        q, k, v = (self._split(project(x)) for project in (self.conv_q, self.conv_k, self.conv_v))
        y = relative_attention(q, k, v, self.emb_rel_k[0], self.emb_rel_v[0], valid)
        return self.conv_o(y.swapaxes(0, 1).reshape(x.shape))

    def _split(self, x: mx.array) -> mx.array:
        return x.reshape(x.shape[0], self._heads, -1).swapaxes(0, 1)  # [H, T, C / H]


class FeedForward(nn.Module):
    """Two convolutions over time with ReLU between, masked before each."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, kernel = config.hidden_channels, config.kernel_size
        self.conv_1 = Conv1d(channels, config.filter_channels, kernel, padding=kernel // 2)
        self.conv_2 = Conv1d(config.filter_channels, channels, kernel, padding=kernel // 2)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        y = mx.maximum(self.conv_1(x * mask), 0.0)
        return self.conv_2(y * mask) * mask


class Encoder(nn.Module):
    """Transformer layers, normalised after each residual sum."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        depth, channels = range(config.n_layers), config.hidden_channels
        self.attn_layers = [RelativeAttention(config) for _ in depth]
        self.norm_layers_1 = [ChannelNorm(channels) for _ in depth]
        self.ffn_layers = [FeedForward(config) for _ in depth]
        self.norm_layers_2 = [ChannelNorm(channels) for _ in depth]

    def __call__(self, x: mx.array, mask: mx.array, valid: int) -> mx.array:
        x = x * mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attend, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + attend(x, valid))
            x = norm_2(x + feed_forward(x, mask))
        return x * mask


class TextEncoder(nn.Module):
    """Content [T, D] and pitch codes [T] → mean and log standard deviation [T, C], zero from frame `valid` on."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.emb_phone = Linear(config.feature_dim, config.hidden_channels)
        self.emb_pitch = Embedding(PITCH_CODES, config.hidden_channels) if config.has_f0 else None
        self.encoder = Encoder(config)
        self.proj = Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)
        self._scale = math.sqrt(config.hidden_channels)

    def __call__(self, content: mx.array, coarse: mx.array, valid: int) -> tuple[mx.array, mx.array]:
        mask = frame_mask(content.shape[0], valid, content.dtype)
        x = self.emb_phone(content)
        if self.emb_pitch is not None:
            x = x + self.emb_pitch(coarse)
        x = leaky_relu(x * self._scale, DECODER_SLOPE)
        x = self.encoder(x, mask, valid)
        mean, logs = mx.split(self.proj(x) * mask, 2, axis=1)
        return mean, logs

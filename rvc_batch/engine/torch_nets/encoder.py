"""The text encoder of the synthesiser in torch: content features and pitch codes → the prior of the latent.

Sequences are [1, C, T]. Twin of mlx_nets/encoder.py. Source: RVC infer/module/models.py and attentions.py @ 4338f12.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from rvc_batch.engine.network_config import (
    DECODER_SLOPE,
    LAYER_NORM_EPS,
    PITCH_CODES,
    RELATIVE_WINDOW,
    SynthesizerConfig,
)
from rvc_batch.engine.torch_nets.layers import Conv1d, Embedding, Linear, frame_mask, leaky_relu, relative_attention

__all__ = ["ChannelNorm", "Encoder", "FeedForward", "RelativeAttention", "TextEncoder"]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [1, C, T], under the names of the checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta, LAYER_NORM_EPS)
        return y.transpose(1, 2)


class RelativeAttention(nn.Module):
    """Multi-head self-attention with learnt terms for the ±10 nearest frames, shared by the heads."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, near = config.hidden_channels, (1, 2 * RELATIVE_WINDOW + 1, config.hidden_channels // config.n_heads)
        self.conv_q = Conv1d(channels, channels, 1)
        self.conv_k = Conv1d(channels, channels, 1)
        self.conv_v = Conv1d(channels, channels, 1)
        self.conv_o = Conv1d(channels, channels, 1)
        self.emb_rel_k = nn.Parameter(torch.zeros(near))
        self.emb_rel_v = nn.Parameter(torch.zeros(near))
        self._heads = config.n_heads

    def forward(self, x: torch.Tensor, valid: int) -> torch.Tensor:
        q, k, v = (self._split(project(x)) for project in (self.conv_q, self.conv_k, self.conv_v))
        y = relative_attention(q, k, v, self.emb_rel_k[0], self.emb_rel_v[0], valid)
        z: torch.Tensor = self.conv_o(y.transpose(2, 3).reshape(x.shape))
        return z

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, self._heads, -1, x.shape[2]).transpose(2, 3)  # [1, H, T, C / H]


class FeedForward(nn.Module):
    """Two convolutions over time with ReLU between, masked before each."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, kernel = config.hidden_channels, config.kernel_size
        self.conv_1 = Conv1d(channels, config.filter_channels, kernel, padding=kernel // 2)
        self.conv_2 = Conv1d(config.filter_channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.conv_1(x * mask))
        z: torch.Tensor = self.conv_2(y * mask) * mask
        return z


class Encoder(nn.Module):
    """Transformer layers, normalised after each residual sum."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        depth, channels = range(config.n_layers), config.hidden_channels
        self.attn_layers = nn.ModuleList(RelativeAttention(config) for _ in depth)
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in depth)
        self.ffn_layers = nn.ModuleList(FeedForward(config) for _ in depth)
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in depth)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, valid: int) -> torch.Tensor:
        x = x * mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attend, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + attend(x, valid))
            x = norm_2(x + feed_forward(x, mask))
        return x * mask


class TextEncoder(nn.Module):
    """Content [T, D], pitch codes [T] → mean and log standard deviation [1, C, T], zero from frame `valid` on."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.emb_phone = Linear(config.feature_dim, config.hidden_channels)
        self.emb_pitch = Embedding(PITCH_CODES, config.hidden_channels) if config.has_f0 else None
        self.encoder = Encoder(config)
        self.proj = Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)
        self._scale = math.sqrt(config.hidden_channels)

    def forward(self, content: torch.Tensor, coarse: torch.Tensor, valid: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = frame_mask(content.shape[0], valid, content.dtype)
        x = self.emb_phone(content)
        if self.emb_pitch is not None:
            x = x + self.emb_pitch(coarse)
        x = leaky_relu(x * self._scale, DECODER_SLOPE)
        x = self.encoder(x.T[None], mask, valid)
        mean, logs = (self.proj(x) * mask).chunk(2, dim=1)
        return mean, logs

"""HuBERT base (Hsu et al. 2021), as which ContentVec is distributed too, in torch.

The wave goes in as it is, without normalisation. Sequences are [1, T, C] except around convolutions, [1, C, T]. Names
are those of transformers' HubertModel. Twin of mlx_nets/hubert.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import nn

from rvc_batch.engine.network_config import LAYER_NORM_EPS, HubertConfig
from rvc_batch.engine.torch_nets.layers import (
    Conv1d,
    GroupNorm,
    LayerNorm,
    Linear,
    attention,
    gelu,
    gelu_of,
    normalised_sum,
)

__all__ = [
    "Attention",
    "ConvLayer",
    "Encoder",
    "EncoderLayer",
    "FeatureExtractor",
    "FeatureProjection",
    "FeedForward",
    "Hubert",
    "PositionalConv",
]


class ConvLayer(nn.Module):
    """A strided convolution; only the first is normalised, each channel over the whole time."""

    def __init__(self, config: HubertConfig, index: int) -> None:
        super().__init__()
        inputs = 1 if index == 0 else config.conv_dims[index - 1]
        outputs = config.conv_dims[index]
        self.conv = Conv1d(inputs, outputs, config.conv_kernels[index], stride=config.conv_strides[index], bias=False)
        self.layer_norm = GroupNorm(outputs, outputs, LAYER_NORM_EPS) if index == 0 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.layer_norm is None:
            return gelu_of(self.conv, x)
        return gelu_of(self.layer_norm, self.conv(x))


class FeatureExtractor(nn.Module):
    """Wave [N] at 16 kHz → [1, T, C] at 50 frames per second."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(config, i) for i in range(len(config.conv_dims)))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        x = wave[None, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    """[1, T, C] → [1, T, D]."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(config.conv_dims[-1], LAYER_NORM_EPS)
        self.projection = Linear(config.conv_dims[-1], config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.projection(self.layer_norm(x))
        return y


class PositionalConv(nn.Module):
    """A wide grouped convolution in place of position embeddings; an even kernel's extra frame is dropped."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.conv = Conv1d(
            config.hidden,
            config.hidden,
            config.pos_kernel,
            padding=config.pos_kernel // 2,
            groups=config.pos_groups,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x.transpose(1, 2))[:, :, : x.shape[1]]
        return gelu(y).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.q_proj = Linear(config.hidden, config.hidden)
        self.k_proj = Linear(config.hidden, config.hidden)
        self.v_proj = Linear(config.hidden, config.hidden)
        self.out_proj = Linear(config.hidden, config.hidden)
        self._heads = config.n_heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        y: torch.Tensor = self.out_proj(attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return y

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:2], self._heads, -1).transpose(1, 2)  # [1, H, T, D / H]


class FeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.intermediate_dense = Linear(config.hidden, config.ffn)
        self.output_dense = Linear(config.ffn, config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.output_dense(gelu_of(self.intermediate_dense, x))
        return y


class EncoderLayer(nn.Module):
    """A transformer layer, normalised after each residual sum."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.layer_norm = LayerNorm(config.hidden, LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = LayerNorm(config.hidden, LAYER_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = normalised_sum(self.layer_norm, x, self.attention(x))
        return normalised_sum(self.final_layer_norm, x, self.feed_forward(x))


class Encoder(nn.Module):
    """The transformer; yields what its first layer is given, then what each layer returns."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = LayerNorm(config.hidden, LAYER_NORM_EPS)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))

    def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        x = normalised_sum(self.layer_norm, x, self.pos_conv_embed(x))
        yield x
        for layer in self.layers:
            x = layer(x)
            yield x


class Hubert(nn.Module):
    """Wave [N] at 16 kHz → content features [1, T50, D] of one transformer layer, projected for v1 voices."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)
        self.final_proj = Linear(config.hidden, config.projection)

    def forward(self, wave: torch.Tensor, *, layer: int, project: bool) -> torch.Tensor:
        x = self.feature_projection(self.feature_extractor(wave))
        x = next(islice(self.encoder(x), layer, None))
        y: torch.Tensor = self.final_proj(x) if project else x
        return y

    def stages(self, wave: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what `forward` passes through, by name: conv, layer0 … layerN, final_proj1 … final_projN."""
        conv = self.feature_extractor(wave)
        stages = {"conv": conv}
        for depth, x in enumerate(self.encoder(self.feature_projection(conv))):
            stages[f"layer{depth}"] = x
            stages[f"final_proj{depth}"] = self.final_proj(x)
        return stages

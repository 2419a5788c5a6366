"""The layers of the networks in torch: torch.nn's own, and the few functions it does not have.

Tensors keep a batch axis of one and channels second, as torch's layers want them. Canonical tensors are channels
last: `load_canonical` turns each by the type of the module that owns it, never by its shape or name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import (
    GLU,
    GRU,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Embedding,
    GroupNorm,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    ReLU,
    SiLU,
    functional,
)

from rvc_batch.engine.types import F32

__all__ = [
    "GLU",
    "GRU",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Embedding",
    "FrameConv1d",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "ReLU",
    "SiLU",
    "attention",
    "canonical_shapes",
    "conv_norm_relu",
    "frame_mask",
    "gated",
    "gelu",
    "gelu_of",
    "larger_of_pairs",
    "leaky_relu",
    "load_canonical",
    "mean_pool",
    "normalised_sum",
    "relative_attention",
]


class FrameConv1d(Conv1d):
    """Convolve frames [B, I, L] along L, each by itself, with so many zeros before and after it, to [B, O, L']."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)
        self._zeros = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, self._zeros))


# Axes of the canonical weight in torch's order, by the type of the module.
TORCH_AXES: dict[type[nn.Module], tuple[int, ...]] = {
    Conv1d: (0, 2, 1),  # [O, K, I] → [O, I, K]
    FrameConv1d: (0, 2, 1),
    Conv2d: (0, 3, 1, 2),  # [O, K, K, I] → [O, I, K, K]
    ConvTranspose1d: (2, 0, 1),  # [O, K, I] → [I, O, K]
    ConvTranspose2d: (3, 0, 1, 2),  # [O, K, K, I] → [I, O, K, K]
}
COUNTER = "num_batches_tracked"  # torch's own training counter: no part of a network


def canonical_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the canonical checkpoint by key."""
    axes = _axes_by_key(network)
    shapes = {}
    for key, value in network.state_dict().items():
        if key.endswith(COUNTER):
            continue
        shape = tuple(value.shape)
        if key in axes:
            shape = tuple(shape[axes[key].index(axis)] for axis in range(len(shape)))
        shapes[key] = shape
    return shapes


def load_canonical(network: nn.Module, tensors: Mapping[str, F32]) -> None:
    """Put canonical tensors into the network; keys and shapes must have been compared."""
    axes = _axes_by_key(network)
    state = {key: torch.tensor(0) for key in network.state_dict() if key.endswith(COUNTER)}
    for key, value in tensors.items():
        tensor = torch.from_numpy(value)
        state[key] = tensor.permute(axes[key]).contiguous() if key in axes else tensor
    network.load_state_dict(state, strict=True, assign=True)
    network.requires_grad_(False)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Apply the exact (erf) GELU."""
    return functional.gelu(x)


def gelu_of(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return GELU of what a layer makes of x."""
    return gelu(layer(x))


def normalised_sum(norm: LayerNorm, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the layer norm of x + y [B, T, C]."""
    z: torch.Tensor = norm(x + y)
    return z


def conv_norm_relu(steps: list[nn.Module], x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
    """Run a convolution without bias, BatchNorm2d and ReLU, the three `steps`, and add the shortcut."""
    for step in steps:
        x = step(x)
    return x if shortcut is None else x + shortcut


def larger_of_pairs(x: torch.Tensor) -> torch.Tensor:
    """Halve the time of [B, C, L] by the larger of every two."""
    return functional.max_pool1d(x, 2)


def leaky_relu(x: torch.Tensor, slope: float) -> torch.Tensor:
    """Return x where positive, slope · x elsewhere; slope in 0–1."""
    return functional.leaky_relu(x, slope)


def gated(signal: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return tanh(signal) · sigmoid(gate), the activation of WaveNet."""
    return torch.tanh(signal) * torch.sigmoid(gate)


def frame_mask(frames: int, valid: int, dtype: torch.dtype) -> torch.Tensor:
    """Return [1, 1, T]: 1 for the first `valid` frames, 0 for the rest."""
    return (torch.arange(frames) < valid).to(dtype)[None, None]


def mean_pool(x: torch.Tensor) -> torch.Tensor:
    """Halve both axes of [B, C, T, M] by the mean of 2 × 2."""
    return functional.avg_pool2d(x, 2)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend with queries, keys and values [B, H, T, D], scale 1 / √D; returns [B, H, T, D]."""
    return functional.scaled_dot_product_attention(q, k, v)


def relative_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    near_keys: torch.Tensor,
    near_values: torch.Tensor,
    valid: int,
) -> torch.Tensor:
    """Attend as `attention` does, with learnt terms for keys at most W frames away.

    near_keys, near_values: [2W + 1, D], shared by the heads; row r belongs to the key r - W frames ahead. Keys from
    `valid` on are masked. The relative terms are added to and read from the diagonals of the scores.
    Source: Shaw et al. 2018; RVC infer/module/attentions.py @ 4338f12.
    """
    frames, reach = q.shape[-2], near_keys.shape[0] // 2
    q = q * q.shape[-1] ** -0.5
    scores = q @ k.transpose(-1, -2)
    near = q @ near_keys.T  # [B, H, T, 2W + 1]
    # diagonal r holds the pairs (t, t + r)
    diagonals = {r: slice(max(0, -r), frames - max(0, r)) for r in range(-reach, reach + 1) if abs(r) < frames}
    for r, rows in diagonals.items():
        scores.diagonal(r, -2, -1).add_(near[..., rows, r + reach])
    scores[..., valid:] = -1e4
    weights = scores.softmax(dim=-1)
    near = torch.zeros_like(near)
    for r, rows in diagonals.items():
        near[..., rows, r + reach] = weights.diagonal(r, -2, -1)
    return weights @ v + near @ near_values


def _axes_by_key(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.weight".lstrip("."): TORCH_AXES[type(module)]
        for name, module in network.named_modules()
        if type(module) in TORCH_AXES
    }

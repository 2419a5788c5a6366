"""The normalising flow of the synthesiser in MLX, in the one direction that inference needs: prior → latent.

Sequences are [T, C]. Twin of torch_nets/flow.py. Source: RVC infer/module/models.py and modules.py @ 4338f12.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import Conv1d, gated
from rvc_batch.engine.network_config import FLOW_KERNEL, FLOW_LAYERS, N_FLOWS, SynthesizerConfig

__all__ = ["Coupling", "Flip", "Flow", "WaveNet"]


class WaveNet(nn.Module):
    """Gated convolutions, each conditioned on the speaker; returns the sum of their skip outputs."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, last = config.hidden_channels, FLOW_LAYERS - 1
        self.in_layers = [
            Conv1d(channels, 2 * channels, FLOW_KERNEL, padding=FLOW_KERNEL // 2) for _ in range(FLOW_LAYERS)
        ]
        self.res_skip_layers = [
            Conv1d(channels, channels if i == last else 2 * channels, 1) for i in range(FLOW_LAYERS)
        ]
        self.cond_layer = Conv1d(config.gin_channels, 2 * channels * FLOW_LAYERS, 1)

    def __call__(self, x: mx.array, mask: mx.array, speaker: mx.array) -> mx.array:
        conditions = mx.split(self.cond_layer(speaker), FLOW_LAYERS, axis=1)
        skipped = mx.zeros_like(x)
        for i, condition in enumerate(conditions):
            signal, gate = mx.split(self.in_layers[i](x) + condition, 2, axis=1)
            y = self.res_skip_layers[i](gated(signal, gate))
            if i < FLOW_LAYERS - 1:
                residual, y = mx.split(y, 2, axis=1)
                x = (x + residual) * mask
            skipped = skipped + y
        return skipped * mask


class Coupling(nn.Module):
    """Subtract from one half of the channels a mean predicted from the other half."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        half = config.inter_channels // 2
        self.pre = Conv1d(half, config.hidden_channels, 1)
        self.enc = WaveNet(config)
        self.post = Conv1d(config.hidden_channels, half, 1)

    def __call__(self, x: mx.array, mask: mx.array, speaker: mx.array) -> mx.array:
        kept, changed = mx.split(x, 2, axis=1)
        h = self.enc(self.pre(kept) * mask, mask, speaker)
        return mx.concatenate([kept, (changed - self.post(h) * mask) * mask], axis=1)


class Flip(nn.Module):
    """Reverse the channels, so that the next coupling changes the other half."""

    def __call__(self, x: mx.array, mask: mx.array, speaker: mx.array) -> mx.array:
        return x[:, ::-1]


class Flow(nn.Module):
    """Couplings, each followed by a flip, run backwards: [T, C] → [T, C]."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.flows = [Flip() if i % 2 else Coupling(config) for i in range(2 * N_FLOWS)]

    def __call__(self, x: mx.array, mask: mx.array, speaker: mx.array) -> mx.array:
        for step in reversed(self.flows):
            x = step(x, mask, speaker)
        return x

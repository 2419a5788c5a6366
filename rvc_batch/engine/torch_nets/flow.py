"""The normalising flow of the synthesiser in torch, in the one direction that inference needs: prior → latent.

Sequences are [1, C, T]. Twin of mlx_nets/flow.py. Source: RVC infer/module/models.py and modules.py @ 4338f12.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_batch.engine.network_config import FLOW_KERNEL, FLOW_LAYERS, N_FLOWS, SynthesizerConfig
from rvc_batch.engine.torch_nets.layers import Conv1d, gated

__all__ = ["Coupling", "Flip", "Flow", "WaveNet"]


class WaveNet(nn.Module):
    """Gated convolutions, each conditioned on the speaker; returns the sum of their skip outputs."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, last = config.hidden_channels, FLOW_LAYERS - 1
        self.in_layers = nn.ModuleList(
            Conv1d(channels, 2 * channels, FLOW_KERNEL, padding=FLOW_KERNEL // 2) for _ in range(FLOW_LAYERS)
        )
        self.res_skip_layers = nn.ModuleList(
            Conv1d(channels, channels if i == last else 2 * channels, 1) for i in range(FLOW_LAYERS)
        )
        self.cond_layer = Conv1d(config.gin_channels, 2 * channels * FLOW_LAYERS, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        conditions = self.cond_layer(speaker).chunk(FLOW_LAYERS, dim=1)
        skipped = torch.zeros_like(x)
        for i, condition in enumerate(conditions):
            signal, gate = (self.in_layers[i](x) + condition).chunk(2, dim=1)
            y = self.res_skip_layers[i](gated(signal, gate))
            if i < FLOW_LAYERS - 1:
                residual, y = y.chunk(2, dim=1)
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

    def forward(self, x: torch.Tensor, mask: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, dim=1)
        h = self.enc(self.pre(kept) * mask, mask, speaker)
        return torch.cat([kept, (changed - self.post(h) * mask) * mask], dim=1)


class Flip(nn.Module):
    """Reverse the channels, so that the next coupling changes the other half."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        return x.flip(1)


class Flow(nn.Module):
    """Couplings, each followed by a flip, run backwards: [1, C, T] → [1, C, T]."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.flows = nn.ModuleList(Flip() if i % 2 else Coupling(config) for i in range(2 * N_FLOWS))

    def forward(self, x: torch.Tensor, mask: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        for step in reversed(self.flows):
            x = step(x, mask, speaker)
        return x

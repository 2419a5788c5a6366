"""The RefineGAN generator of Applio in torch: latent → wave.

The source goes down through the rates of the stages, low-passed at each; the latent comes up through them, stretched
in lines, meeting the source at each and taking in noise. Sequences are [1, C, T]. Twin of mlx_nets/refinegan.py.
Source: Applio rvc/lib/algorithm/generators/refinegan_legacy.py @ 4eace3d, which renders the published voices.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from rvc_batch.engine.decimation import decimation_kernel, decimation_reach
from rvc_batch.engine.network_config import REFINE_DILATIONS, REFINE_KERNELS, REFINE_SLOPE, SynthesizerConfig
from rvc_batch.engine.torch_nets.generator import ResidualBlock, SourceModule
from rvc_batch.engine.torch_nets.layers import Conv1d, leaky_relu
from rvc_batch.engine.torch_nets.position_noise import normal_noise

__all__ = ["AdaIN", "ParallelBlock", "RefineGenerator", "decimated"]


class AdaIN(nn.Module):
    """Add noise, so much of it in each channel as was learnt, and activate. `place` numbers its noise."""

    def __init__(self, channels: int, place: int, rate: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self._place, self._rate = place, rate

    def forward(self, x: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        noise = normal_noise(origin[0], self._place, origin[1] * self._rate, (x.shape[2], x.shape[1]))
        return leaky_relu(x + noise.T[None].to(x.dtype) * self.weight[:, None], REFINE_SLOPE)


class ParallelBlock(nn.Module):
    """A convolution, then residual blocks of several kernels beside each other, each between two noises; their mean."""

    def __init__(self, inputs: int, channels: int, stage: int, rate: int) -> None:
        super().__init__()
        self.input_conv = Conv1d(inputs, channels, 7, padding=3)
        first = 2 * len(REFINE_KERNELS) * stage
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    AdaIN(channels, first + 2 * i, rate),
                    ResidualBlock(channels, kernel, REFINE_DILATIONS, REFINE_SLOPE),
                    AdaIN(channels, first + 2 * i + 1, rate),
                ]
            )
            for i, kernel in enumerate(REFINE_KERNELS)
        )

    def forward(self, x: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        y, outputs = self.input_conv(x), []
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            before, residual, after = block
            outputs.append(after(residual(before(y, origin)), origin))
        mean: torch.Tensor = sum(outputs[1:], start=outputs[0]) / len(outputs)
        return mean


class RefineGenerator(nn.Module):
    """z [1, C, T], source [T·hop] and the origin [2] of the noise, key and frame → audio [T·hop] in ±1."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        rates, frames = config.upsample_rates, config.source_channels(0)
        stages = range(len(rates))
        self._rates = rates
        self.m_source = SourceModule(config.n_harmonics, bias=False)
        self.pre_conv = Conv1d(1, config.source_channels(len(rates)), 7, padding=3)
        self.downsample_blocks = nn.ModuleList(
            Conv1d(config.source_channels(i + 1), config.source_channels(i), 7, padding=3) for i in reversed(stages)
        )
        self.mel_conv = Conv1d(config.inter_channels, frames, 7, padding=3)
        self.cond = Conv1d(config.gin_channels, frames, 1)
        self.upsample_conv_blocks = nn.ModuleList(
            ParallelBlock(
                2 * config.stage_channels(i) + config.source_channels(i + 1),
                config.stage_channels(i),
                i,
                math.prod(rates[: i + 1]),
            )
            for i in stages
        )
        self.conv_post = Conv1d(config.stage_channels(stages[-1]), 1, 7, padding=3, bias=False)

    def forward(
        self, z: torch.Tensor, source: torch.Tensor, speaker: torch.Tensor, origin: torch.Tensor
    ) -> torch.Tensor:
        y, sources = self.pre_conv(self.m_source(source)), []
        for rate, conv in zip(reversed(self._rates), self.downsample_blocks, strict=True):
            y = leaky_relu(y, REFINE_SLOPE)
            sources.append(y)
            y = conv(decimated(y, rate))
        x = torch.cat([self.mel_conv(z) + self.cond(speaker), y], dim=1)
        for rate, block in zip(self._rates, self.upsample_conv_blocks, strict=True):
            x = _stretched(leaky_relu(x, REFINE_SLOPE), rate)
            x = block(torch.cat([x, sources.pop()], dim=1), origin)
        return torch.tanh(self.conv_post(leaky_relu(x, REFINE_SLOPE)))[0, 0]


def decimated(x: torch.Tensor, rate: int) -> torch.Tensor:
    """Low-pass [1, C, T · rate] and keep every `rate`-th sample: [1, C, T]. Beyond the ends lie zeros."""
    kernel, reach = torch.tensor(decimation_kernel(rate), dtype=x.dtype), decimation_reach(rate)
    padded = functional.pad(x[0, :, None], (reach, reach))
    return functional.conv1d(padded, kernel[None, None], stride=rate)[None, :, 0]


def _stretched(x: torch.Tensor, rate: int) -> torch.Tensor:
    """Return x [1, C, T] stretched to [1, C, T · rate], linear between the middles of its frames.

    Not `functional.interpolate`: it counts in float32, and after 60 000 frames is off by a hundredth of one.
    """
    frames = x.shape[2]
    from_first = 2 * torch.arange(frames * rate) + 1 + rate  # from the middle of the frame before 0, in 1 / (2 · rate)
    row, share = from_first // (2 * rate) - 1, (from_first % (2 * rate)).to(x.dtype) / (2 * rate)
    return x[..., row.clamp(min=0)] * (1 - share) + x[..., (row + 1).clamp(max=frames - 1)] * share

"""The HiFi-GAN generator (Kong et al. 2020) in torch: latent → wave.

Voices with f0 are driven by a harmonic source (NSF). Applio's MRF HiFi-GAN is the same generator with more harmonics
and a bias at the end; its checkpoints name the parts differently.
Sequences are [1, C, T]; each upsampling stage multiplies T by its rate.
Twin of mlx_nets/generator.py.
Source: RVC infer/module/models.py and modules.py @ 4338f12.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_batch.engine.network_config import DECODER_SLOPE, FINAL_SLOPE, SynthesizerConfig
from rvc_batch.engine.torch_nets.layers import Conv1d, ConvTranspose1d, Linear, leaky_relu

__all__ = ["Generator", "ResidualBlock", "SourceModule", "noise_conv", "upsampler"]


class SourceModule(nn.Module):
    """Merge the harmonics: sines plus noise, [N] of the one that RVC has or [N, H], → [1, 1, N]."""

    def __init__(self, n_harmonics: int, *, bias: bool = True) -> None:
        super().__init__()
        self.l_linear = Linear(n_harmonics, 1, bias=bias)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.l_linear(source.reshape(source.shape[0], -1))).T[None]


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a shortcut."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], slope: float = DECODER_SLOPE) -> None:
        super().__init__()
        self._slope = slope
        self.convs1 = nn.ModuleList(
            Conv1d(channels, channels, kernel, padding=kernel // 2 * d, dilation=d) for d in dilations
        )
        self.convs2 = nn.ModuleList(Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(leaky_relu(x, self._slope))
            x = x + plain(leaky_relu(y, self._slope))
        return x


class Generator(nn.Module):
    """z [1, C, T] (and source [T·hop]) → audio [T·hop] in ±1."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        stages = range(len(config.upsample_rates))
        self.m_source = SourceModule(config.n_harmonics) if config.has_f0 else None
        self.noise_convs = nn.ModuleList(noise_conv(config, i) for i in stages if config.has_f0)
        self.conv_pre = Conv1d(config.inter_channels, config.upsample_initial_channels, 7, padding=3)
        self.cond = Conv1d(config.gin_channels, config.upsample_initial_channels, 1)
        self.ups = nn.ModuleList(upsampler(config, i) for i in stages)
        self.resblocks = nn.ModuleList(
            ResidualBlock(config.stage_channels(i), kernel, dilations)
            for i in stages
            for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )
        self.conv_post = Conv1d(config.stage_channels(stages[-1]), 1, 7, padding=3, bias=config.is_mrf)

    def forward(self, z: torch.Tensor, source: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        harmonics = None if self.m_source is None else self.m_source(source)
        n_blocks = len(self.resblocks) // len(self.ups)
        x = self.conv_pre(z) + self.cond(speaker)
        for i, up in enumerate(self.ups):
            x = up(leaky_relu(x, DECODER_SLOPE))
            if harmonics is not None:
                x = x + self.noise_convs[i](harmonics)
            blocks = self.resblocks[i * n_blocks : (i + 1) * n_blocks]
            x = sum((block(x) for block in blocks[1:]), start=blocks[0](x)) / n_blocks
        return torch.tanh(self.conv_post(leaky_relu(x, FINAL_SLOPE)))[0, 0]


def upsampler(config: SynthesizerConfig, stage: int) -> ConvTranspose1d:
    """Return the transposed convolution of a stage: exactly `rate` samples out per sample in.

    When kernel and rate differ by an odd number the sample that is missing is an output padding (Applio's rule).
    """
    rate, kernel = config.upsample_rates[stage], config.upsample_kernels[stage]
    channels = config.stage_channels(stage)
    return ConvTranspose1d(
        2 * channels,
        channels,
        kernel,
        stride=rate,
        padding=(kernel - rate + 1) // 2,
        output_padding=(kernel - rate) % 2,
    )


def noise_conv(config: SynthesizerConfig, stage: int) -> Conv1d:
    """Return the convolution that brings the source down to the rate of a stage, exactly one sample per sample.

    An odd stride takes one tap less (Applio's rule; the original has even strides only).
    """
    stride = config.noise_stride(stage)
    kernel = 1 if stride == 1 else 2 * stride - stride % 2
    return Conv1d(1, config.stage_channels(stage), kernel, stride=stride, padding=(kernel - stride) // 2)

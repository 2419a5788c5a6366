"""The HiFi-GAN generator (Kong et al. 2020) in MLX: latent → wave.

Voices with f0 are driven by a harmonic source (NSF).
Sequences are [T, C]; each upsampling stage multiplies T by its rate.
Twin of torch_nets/generator.py.
Source: RVC infer/module/models.py and modules.py @ 4338f12.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import Conv1d, ConvTranspose1d, Linear, leaky_relu
from rvc_batch.engine.network_config import DECODER_SLOPE, FINAL_SLOPE, SynthesizerConfig

__all__ = ["Generator", "ResidualBlock", "SourceModule", "noise_conv", "upsampler"]


class SourceModule(nn.Module):
    """Merge the harmonics, of which RVC has one: sine plus noise [N] → [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.l_linear = Linear(1, 1)

    def __call__(self, source: mx.array) -> mx.array:
        return mx.tanh(self.l_linear(source[:, None]))


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a shortcut."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = [Conv1d(channels, channels, kernel, padding=kernel // 2 * d, dilation=d) for d in dilations]
        self.convs2 = [Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in dilations]

    def __call__(self, x: mx.array) -> mx.array:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(leaky_relu(x, DECODER_SLOPE))
            x = x + plain(leaky_relu(y, DECODER_SLOPE))
        return x


class Generator(nn.Module):
    """z [T, C] (and source [T·hop]) → audio [T·hop] in ±1."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        stages = range(len(config.upsample_rates))
        self.m_source = SourceModule() if config.has_f0 else None
        self.noise_convs = [noise_conv(config, i) for i in stages] if config.has_f0 else []
        self.conv_pre = Conv1d(config.inter_channels, config.upsample_initial_channels, 7, padding=3)
        self.cond = Conv1d(config.gin_channels, config.upsample_initial_channels, 1)
        self.ups = [upsampler(config, i) for i in stages]
        self.resblocks = [
            ResidualBlock(config.stage_channels(i), kernel, dilations)
            for i in stages
            for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        ]
        self.conv_post = Conv1d(config.stage_channels(stages[-1]), 1, 7, padding=3, bias=False)

    def __call__(self, z: mx.array, source: mx.array, speaker: mx.array) -> mx.array:
        harmonics = None if self.m_source is None else self.m_source(source)
        n_blocks = len(self.resblocks) // len(self.ups)
        x = self.conv_pre(z) + self.cond(speaker)
        for i, up in enumerate(self.ups):
            x = up(leaky_relu(x, DECODER_SLOPE))
            if harmonics is not None:
                x = x + self.noise_convs[i](harmonics)
            blocks = self.resblocks[i * n_blocks : (i + 1) * n_blocks]
            x = sum((block(x) for block in blocks[1:]), start=blocks[0](x)) / n_blocks
        return mx.tanh(self.conv_post(leaky_relu(x, FINAL_SLOPE)))[:, 0]


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

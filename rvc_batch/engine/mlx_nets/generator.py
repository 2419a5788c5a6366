"""The HiFi-GAN generator (Kong et al. 2020) in MLX: latent → wave.

Voices with f0 are driven by a harmonic source (NSF). Applio's MRF HiFi-GAN is the same generator with more harmonics
and a bias at the end; its checkpoints name the parts differently.
Sequences are [T, C]; each upsampling stage multiplies T by its rate.
Twin of torch_nets/generator.py.
Source: RVC infer/module/models.py and modules.py @ 4338f12.
"""

from __future__ import annotations

import functools

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import Conv1d, ConvTranspose1d, Linear, leaky_relu, span_rows
from rvc_batch.engine.mlx_nets.streamed import Span, over_spans
from rvc_batch.engine.network_config import DECODER_SLOPE, FINAL_SLOPE, SynthesizerConfig

__all__ = ["Generator", "ResidualBlock", "SourceModule", "noise_conv", "upsampler"]


class SourceModule(nn.Module):
    """Merge the harmonics: sines plus noise, [N] of the one that RVC has or [N, H], → [N, 1]."""

    def __init__(self, n_harmonics: int, *, bias: bool = True) -> None:
        super().__init__()
        self.l_linear = Linear(n_harmonics, 1, bias=bias)

    def __call__(self, source: mx.array) -> mx.array:
        return mx.tanh(self.l_linear(source.reshape(source.shape[0], -1)))


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a shortcut."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], slope: float = DECODER_SLOPE) -> None:
        super().__init__()
        self._activated = functools.partial(leaky_relu, slope=slope)
        self.convs1 = [Conv1d(channels, channels, kernel, padding=kernel // 2 * d, dilation=d) for d in dilations]
        self.convs2 = [Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in dilations]

    def __call__(self, x: Span) -> Span:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = plain.over(dilated.over(x.map(self._activated)).map(self._activated))
            x = Span(y.rows + x.at(y).rows, y.first, y.length)
        return x

    def window(self, first: int, last: int, length: int) -> tuple[int, int]:
        """Return which rows of a signal of `length` rows it must be given to return rows first … last."""
        rows, before = last - first, 0
        for dilated, plain in zip(reversed(self.convs1), reversed(self.convs2), strict=True):
            rows = dilated.rows_in(plain.rows_in(rows))
            before += dilated.reach_before + plain.reach_before
        return max(first - before, 0), min(first - before + rows, length)


class Generator(nn.Module):
    """z [T, C] (and source [T·hop]) → audio [T·hop] in ±1."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        stages = range(len(config.upsample_rates))
        self._rates = config.upsample_rates
        self.m_source = SourceModule(config.n_harmonics) if config.has_f0 else None
        self.noise_convs = [noise_conv(config, i) for i in stages] if config.has_f0 else []
        self.conv_pre = Conv1d(config.inter_channels, config.upsample_initial_channels, 7, padding=3)
        self.cond = Conv1d(config.gin_channels, config.upsample_initial_channels, 1)
        self.ups = [upsampler(config, i) for i in stages]
        self.resblocks = [
            ResidualBlock(config.stage_channels(i), kernel, dilations)
            for i in stages
            for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        ]
        self.conv_post = Conv1d(config.stage_channels(stages[-1]), 1, 7, padding=3, bias=config.is_mrf)

    def __call__(self, z: mx.array, source: mx.array, speaker: mx.array) -> mx.array:
        harmonics = None if self.m_source is None else self.m_source(source)
        x = _leaky(self.conv_pre(z) + self.cond(speaker))
        for i, rate in enumerate(self._rates):
            slope = FINAL_SLOPE if i == len(self._rates) - 1 else DECODER_SLOPE
            x = self._stage(i, rate * x.shape[0], x, harmonics, slope)
        return over_spans(x.shape[0], span_rows(x.shape[1]), lambda *span: self._wave(x, *span))[:, 0]

    def _wave(self, x: mx.array, first: int, last: int) -> mx.array:
        """Return samples first … last, in float32: half precision would leave noise 50 to 70 dB below it."""
        return mx.tanh(self.conv_post.between(x, first, last).astype(mx.float32))

    def _stage(self, i: int, length: int, x: mx.array, harmonics: mx.array | None, slope: float) -> mx.array:
        """Upsample, add the source and run the residual blocks of stage i: [T, 2C] → [length, C], activated."""
        up, n_blocks = self.ups[i], len(self.resblocks) // len(self.ups)
        blocks = self.resblocks[i * n_blocks : (i + 1) * n_blocks]

        def render(first: int, last: int) -> mx.array:
            windows = [block.window(first, last, length) for block in blocks]
            low, high = min(low for low, _ in windows), max(high for _, high in windows)
            y = up.between(x, low, high)
            if harmonics is not None:
                y = y + self.noise_convs[i].between(harmonics, low, high)
            span = Span(y, low, length)
            outputs = [
                block(span.cut(*window)).cut(first, last).rows for block, window in zip(blocks, windows, strict=True)
            ]
            return leaky_relu(sum(outputs[1:], start=outputs[0]) / n_blocks, slope)

        return over_spans(length, span_rows(up.weight.shape[0]), render)


def _leaky(x: mx.array) -> mx.array:
    return leaky_relu(x, DECODER_SLOPE)


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

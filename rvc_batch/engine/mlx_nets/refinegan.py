"""The RefineGAN generator of Applio in MLX: latent → wave.

The source goes down through the rates of the stages, low-passed at each; the latent comes up through them, stretched
in lines, meeting the source at each and taking in noise. Sequences are [T, C]. Twin of torch_nets/refinegan.py.
Source: Applio rvc/lib/algorithm/generators/refinegan_legacy.py @ 4eace3d, which renders the published voices.
"""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
from mlx import nn

from rvc_batch.engine.decimation import decimation_kernel, decimation_reach
from rvc_batch.engine.mlx_nets.generator import ResidualBlock, SourceModule
from rvc_batch.engine.mlx_nets.layers import Conv1d, leaky_relu, span_rows
from rvc_batch.engine.mlx_nets.position_noise import normal_noise
from rvc_batch.engine.mlx_nets.streamed import Span, over_spans
from rvc_batch.engine.network_config import REFINE_DILATIONS, REFINE_KERNELS, REFINE_SLOPE, SynthesizerConfig

__all__ = ["AdaIN", "ParallelBlock", "RefineGenerator", "decimated"]

DECIMATED_TOGETHER = 32  # outputs per product of the low-pass


class AdaIN(nn.Module):
    """Add noise, so much of it in each channel as was learnt, and activate. `place` numbers its noise."""

    def __init__(self, channels: int, place: int, rate: int) -> None:
        super().__init__()
        self.weight = mx.zeros((channels,))
        self._place, self._rate = place, rate

    def __call__(self, x: Span, origin: mx.array) -> Span:
        first = origin[1] * self._rate + x.first
        rows, channels = x.rows.shape
        noise = normal_noise(origin[0], self._place, first, (rows, channels))
        return Span(_leaky(x.rows + noise.astype(x.rows.dtype) * self.weight), x.first, x.length)


class ParallelBlock(nn.Module):
    """A convolution, then residual blocks of several kernels beside each other, each between two noises; their mean."""

    def __init__(self, inputs: int, channels: int, stage: int, rate: int) -> None:
        super().__init__()
        self.input_conv = Conv1d(inputs, channels, 7, padding=3)
        first = 2 * len(REFINE_KERNELS) * stage
        self.blocks = [
            [
                AdaIN(channels, first + 2 * i, rate),
                ResidualBlock(channels, kernel, REFINE_DILATIONS, REFINE_SLOPE),
                AdaIN(channels, first + 2 * i + 1, rate),
            ]
            for i, kernel in enumerate(REFINE_KERNELS)
        ]

    def __call__(self, x: Span, origin: mx.array) -> Span:
        y = self.input_conv.over(x)
        outputs = [residual(before(y, origin)) for before, residual, _ in self.blocks]
        first, last = max(span.first for span in outputs), min(span.last for span in outputs)
        rows = [
            after(span.cut(first, last), origin).rows for span, (_, _, after) in zip(outputs, self.blocks, strict=True)
        ]
        return Span(sum(rows[1:], start=rows[0]) / len(rows), first, x.length)

    def window(self, first: int, last: int, length: int) -> tuple[int, int]:
        """Return which rows of a signal of `length` rows it must be given to return rows first … last."""
        windows = [residual.window(first, last, length) for _, residual, _ in self.blocks]
        low, high = min(low for low, _ in windows), max(high for _, high in windows)
        begin = low - self.input_conv.reach_before
        return max(begin, 0), min(begin + self.input_conv.rows_in(high - low), length)


class RefineGenerator(nn.Module):
    """z [T, C], source [T·hop] and the origin [2] of the noise, key and frame → audio [T·hop] in ±1."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        rates, frames = config.upsample_rates, config.source_channels(0)
        stages = range(len(rates))
        self._rates = rates
        self.m_source = SourceModule(config.n_harmonics, bias=False)
        self.pre_conv = Conv1d(1, config.source_channels(len(rates)), 7, padding=3)
        self.downsample_blocks = [
            Conv1d(config.source_channels(i + 1), config.source_channels(i), 7, padding=3) for i in reversed(stages)
        ]
        self.mel_conv = Conv1d(config.inter_channels, frames, 7, padding=3)
        self.cond = Conv1d(config.gin_channels, frames, 1)
        self.upsample_conv_blocks = [
            ParallelBlock(
                2 * config.stage_channels(i) + config.source_channels(i + 1),
                config.stage_channels(i),
                i,
                math.prod(rates[: i + 1]),
            )
            for i in stages
        ]
        self.conv_post = Conv1d(config.stage_channels(stages[-1]), 1, 7, padding=3, bias=False)

    def __call__(self, z: mx.array, source: mx.array, speaker: mx.array, origin: mx.array) -> mx.array:
        y, sources = self.pre_conv(self.m_source(source)), []
        for rate, conv in zip(reversed(self._rates), self.downsample_blocks, strict=True):
            y = _leaky(y)
            sources.append(y)
            y = conv(decimated(y, rate))
        x = _leaky(mx.concatenate([self.mel_conv(z) + self.cond(speaker), y], axis=1))
        for i in range(len(self._rates)):
            x = self._stage(i, x, sources.pop(), origin)
        return over_spans(x.shape[0], span_rows(x.shape[1]), lambda *span: self._wave(x, *span))[:, 0]

    def _stage(self, i: int, x: mx.array, source: mx.array, origin: mx.array) -> mx.array:
        """Stretch, join the source of that rate and run the blocks of stage i: [T, 2C] → [T · rate, C], activated."""
        block, length = self.upsample_conv_blocks[i], source.shape[0]

        def render(first: int, last: int) -> mx.array:
            low, high = block.window(first, last, length)
            joined = mx.concatenate([_stretched(x, self._rates[i], low, high), source[low:high]], axis=1)
            return _leaky(block(Span(joined, low, length), origin).cut(first, last).rows)

        return over_spans(length, span_rows(x.shape[1]), render)

    def _wave(self, x: mx.array, first: int, last: int) -> mx.array:
        """Return samples first … last, in float32: half precision would leave noise 50 to 70 dB below it."""
        return mx.tanh(self.conv_post.between(x, first, last).astype(mx.float32))


def decimated(x: mx.array, rate: int) -> mx.array:
    """Low-pass [T · rate, C] and keep every `rate`-th row: [T, C]. Beyond the ends lie zeros."""
    kernel, reach, length = decimation_kernel(rate), decimation_reach(rate), x.shape[0] // rate
    step = (DECIMATED_TOGETHER - 1) * rate
    band = np.zeros((DECIMATED_TOGETHER, step + kernel.size), np.float32)
    for i, row in enumerate(band):
        row[i * rate : i * rate + kernel.size] = kernel
    groups = -(-length // DECIMATED_TOGETHER)
    after = groups * DECIMATED_TOGETHER * rate + reach - x.shape[0]
    padded = mx.contiguous(mx.pad(x, [(reach, after), (0, 0)]))
    strides = (DECIMATED_TOGETHER * rate * x.shape[1], x.shape[1], 1)
    windows = mx.as_strided(padded, (groups, band.shape[1], x.shape[1]), strides)
    return (mx.array(band).astype(x.dtype) @ windows).reshape(-1, x.shape[1])[:length]


def _stretched(x: mx.array, rate: int, first: int, last: int) -> mx.array:
    """Return rows first … last of x [T, C] stretched to [T · rate, C], linear between the middles of its rows."""
    # from the middle of the row before row 0, in 1 / (2 · rate) rows
    from_first = 2 * mx.arange(first, last) + 1 + rate
    row, share = from_first // (2 * rate) - 1, (from_first % (2 * rate)) / (2 * rate)
    end, share = x.shape[0] - 1, share[:, None].astype(x.dtype)
    return x[mx.maximum(row, 0)] * (1 - share) + x[mx.minimum(row + 1, end)] * share


def _leaky(x: mx.array) -> mx.array:
    return leaky_relu(x, REFINE_SLOPE)

"""The layers of the networks in MLX, each in the formulation that its device runs well.

This is the only file that asks which device is in use. A GPU runs MLX's own convolutions; on a CPU those fall into
scalar loops as soon as they dilate, transpose or group, so there they become matrix products. Transposed convolutions
are matrix products everywhere: the built-in ones multiply the zeros between the samples too. There is no batch axis:
time comes first, channels last. Sizes and parameter names follow torch.nn; weights lie as in the canonical checkpoint.
It is long because the choice of a formulation stands in one place, for every layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.nn import Embedding, Identity, LayerNorm, ReLU
from mlx.utils import tree_flatten

from rvc_batch.engine.mlx_nets import cpu_products
from rvc_batch.engine.mlx_nets.cpu_products import Finish, PairedRows
from rvc_batch.engine.mlx_nets.streamed import SPAN_FLOATS, PhaseProduct, Span, lazily_windowed, rows_between, windowed
from rvc_batch.engine.network_config import BATCH_NORM_EPS, FINAL_SLOPE, LAYER_NORM_EPS
from rvc_batch.engine.precision import FULL, Precision
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
    "fused",
    "gated",
    "gelu",
    "gelu_of",
    "larger_of_pairs",
    "leaky_relu",
    "load_canonical",
    "mean_pool",
    "normalised_sum",
    "relative_attention",
    "span_rows",
]

SMALL_PRODUCT = 1 << 12  # outputs of a linear layer that are not worth sharing out
WINDOW_FLOATS = 1 << 21  # 8 MB of gathered windows or attention scores at a time: stays near the cache
WIDE_WINDOW = 1 << 11  # floats in a window of `FrameConv1d`; copying longer ones costs more than it saves
QUANTIZE_GROUP = 64  # weights of a row that share scale and offset


def canonical_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the canonical checkpoint by key."""
    flat: dict[str, mx.array] = dict(tree_flatten(network.parameters()))
    return {key: tuple(value.shape) for key, value in flat.items()}


def load_canonical(network: nn.Module, tensors: Mapping[str, F32], precision: Precision = FULL) -> None:
    """Put canonical tensors into the network in a precision; keys and shapes must have been compared.

    Linear layers whose width is not a multiple of `QUANTIZE_GROUP` are not quantised; none of published size but the
    merge of the one harmonic is.
    """
    network.load_weights([(key, mx.array(value)) for key, value in tensors.items()], strict=True)
    if precision.quantize_bits:
        nn.quantize(network, QUANTIZE_GROUP, precision.quantize_bits, class_predicate=_fills_groups)
    network.set_dtype(getattr(mx, precision.dtype))
    mx.eval(network.parameters())
    for layer in network.modules():
        if isinstance(layer, Conv1d | Conv2d | ConvTranspose1d | ConvTranspose2d):
            layer.pack()


class Linear(nn.Linear):
    """Multiply [T, I] to [T, O]; weight [O, I]."""

    def __call__(self, x: mx.array) -> mx.array:
        return cpu_products.linear(x, self.weight, self.get("bias")) if self.is_shared(x) else super().__call__(x)

    def is_shared(self, x: mx.array) -> bool:
        """Say whether the product is computed on all cores of a CPU."""
        return _by_hand(x) and x.shape[0] * int(self.weight.shape[0]) >= SMALL_PRODUCT


class Conv1d(nn.Module):
    """Convolve [T, I] along time to [T', O]; weight [O, K, I / groups]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((out_channels, kernel_size, in_channels // groups))
        self.bias = mx.zeros((out_channels,)) if bias else None
        self._stride, self._padding, self._dilation, self._groups = stride, padding, dilation, groups
        self._packed: PhaseProduct | None = None

    def __call__(self, x: mx.array) -> mx.array:
        if self.is_windowed(x):
            y = self.windowed(x)
            return y if self.bias is None else y + self.bias
        if not self._has_phases:
            y = mx.conv1d(x[None], self.weight, self._stride, self._padding, self._dilation, self._groups)[0]
            return y if self.bias is None else y + self.bias
        return self.between(x, 0, (x.shape[0] + 2 * self._padding - self._reach - 1) // self._stride + 1)

    def is_windowed(self, x: mx.array) -> bool:
        """Say whether windows of the input are gathered on a CPU: for strides and groups."""
        return _by_hand(x) and not self._has_phases

    def windowed(self, x: mx.array, *, is_gelu: bool = False) -> mx.array:
        """Convolve by gathered windows, without the bias, and apply GELU if wanted."""
        x = mx.pad(x, [(self._padding, self._padding), (0, 0)]) if self._padding else x
        is_depthwise = 1 < self._groups == x.shape[1] == self.weight.shape[0]
        if is_depthwise and not is_gelu and (self._stride, self._dilation) == (1, 1):
            return cpu_products.depthwise(x, self.weight)
        form = {"stride": self._stride, "dilation": self._dilation, "groups": self._groups}
        return windowed(x, self.weight, **form, is_gelu=is_gelu)

    def between(self, x: mx.array, first: int, last: int) -> mx.array:
        """Return rows first … last of what `__call__` returns for the signal x."""
        begin, rows = first * self._stride - self._padding, last - first
        if self._has_phases:
            return self._phases(rows_between(x, begin, begin + self.rows_in(rows)), self._any_bias)[:rows]
        x = rows_between(x, begin, begin + (rows - 1) * self._stride + self._reach + 1)
        if _by_hand(x):
            y = lazily_windowed(x, self.weight, self._stride, self._dilation, self._groups)
        else:
            y = mx.conv1d(x[None], self.weight, self._stride, 0, self._dilation, self._groups)[0]
        return y if self.bias is None else y + self.bias

    def over(self, x: Span) -> Span:
        """Convolve a span of a signal; only for layers that keep the length. Zeros are read where the signal ends.

        The result lacks the rows that the kernel cannot reach. On a CPU a span from the midst of a signal loses up to
        a unit of `rows_in` more on its right: what does not fill the products.
        """
        if (x.begins and x.ends) or not self._has_phases:
            return Span(self(x.rows), x.first, x.length)
        before, after = (self._padding if end else 0 for end in (x.begins, x.ends))
        rows = x.rows.shape[0] + before + after - self._reach
        if not (x.begins or x.ends):
            rows -= rows % self._phases.unit
        padded = rows_between(x.rows, -before, max(self.rows_in(rows) - before, x.rows.shape[0]))
        return Span(self._phases(padded, self._any_bias)[:rows], x.first + self._padding - before, x.length)

    def rows_in(self, rows_out: int) -> int:
        """Return how many rows from the midst of a signal `over` needs to return at least `rows_out`."""
        return self._phases.rows_in(rows_out) if self._has_phases else rows_out + self._reach

    def pack(self) -> None:
        """Lay the weight out for the CPU."""
        if self._has_phases:
            self._packed = PhaseProduct(_host(self.weight), self._dilation, self.weight.dtype)

    @property
    def reach_before(self) -> int:
        """Return how many rows before a row of the output it depends on, for layers that keep the length."""
        return self._padding

    @property
    def _reach(self) -> int:
        return int(self._dilation * (self.weight.shape[1] - 1))

    @property
    def _has_phases(self) -> bool:
        return _on_cpu() and self._groups == 1 and self._stride == 1

    @property
    def _phases(self) -> PhaseProduct:
        if self._packed is None:  # a layer that was built but never loaded
            self.pack()
        assert self._packed is not None
        return self._packed

    @property
    def _any_bias(self) -> mx.array:
        return mx.zeros((self.weight.shape[0],), self.weight.dtype) if self.bias is None else self.bias


class FrameConv1d(nn.Module):
    """Convolve frames [B, L, I] along L, each by itself, with so many zeros before and after it, to [B, L', O].

    On a CPU short windows are laid side by side for one product. A kernel over many channels is a sum of products, one
    per tap: its windows would take sixty times the memory of the frames. Weight [O, K, I].
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((out_channels, kernel_size, in_channels))
        self.bias = mx.zeros((out_channels,))
        self._stride, self._zeros = stride, padding

    def __call__(self, x: mx.array) -> mx.array:
        x = mx.pad(x, [(0, 0), self._zeros, (0, 0)])
        frames, (outputs, kernel, inputs) = x.shape[0], self.weight.shape
        length = (x.shape[1] - kernel) // self._stride + 1
        if not _by_hand(x):
            return mx.conv1d(x, self.weight, self._stride) + self.bias
        if kernel * inputs <= WIDE_WINDOW:
            strides = (x.shape[1] * inputs, self._stride * inputs, 1)
            windows = mx.as_strided(mx.contiguous(x), (frames, length, kernel * inputs), strides)
            y = windows.reshape(-1, kernel * inputs) @ self.weight.reshape(outputs, -1).T
        else:
            last = (length - 1) * self._stride + 1
            y = mx.zeros((frames * length, outputs))
            for tap in range(kernel):
                rows = x[:, tap : tap + last : self._stride].reshape(-1, inputs)
                y = mx.addmm(y, rows, self.weight[:, tap].T)
        return y.reshape(frames, length, outputs) + self.bias


class ConvTranspose1d(nn.Module):
    """Upsample [T, I] to [(T - 1)·stride - 2·padding + K + output_padding, O]; weight [O, K, I]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((out_channels, kernel_size, in_channels))
        self.bias = mx.zeros((out_channels,)) if bias else None
        self._stride, self._padding, self._output_padding = stride, padding, output_padding
        self._packed: PhaseProduct | None = None

    def __call__(self, x: mx.array) -> mx.array:
        length = (x.shape[0] - 1) * self._stride - 2 * self._padding + self.weight.shape[1] + self._output_padding
        return self.between(x, 0, length)

    def between(self, x: mx.array, first: int, last: int) -> mx.array:
        """Return rows first … last of what `__call__` returns for the signal x.

        A cell is `stride` outputs. It is a convolution over the input at its place and the taps before it, with the
        phases of the kernel as its outputs: the zeros that lie between the inputs are never multiplied.
        """
        cell, end = (first + self._padding) // self._stride, -(-(last + self._padding) // self._stride)
        begin = cell - self._taps + 1
        phases = self._phases
        rows = rows_between(x, begin, begin + phases.rows_in(end - cell))
        y = phases(rows, self._cell_bias).reshape(-1, self.weight.shape[0])
        return y[first + self._padding - cell * self._stride :][: last - first]

    def pack(self) -> None:
        """Lay the weight out as that of a convolution, [phase · O, tap, I], the earliest input first."""
        outputs, kernel, inputs = self.weight.shape
        weight = np.zeros((outputs, self._taps * self._stride, inputs), np.float32)
        weight[:, :kernel] = _host(self.weight)
        weight = weight.reshape(outputs, self._taps, self._stride, inputs)[:, ::-1].transpose(2, 0, 1, 3)
        self._packed = PhaseProduct(weight.reshape(-1, self._taps, inputs), dtype=self.weight.dtype)

    @property
    def _taps(self) -> int:
        return -(-int(self.weight.shape[1]) // self._stride)

    @property
    def _phases(self) -> PhaseProduct:
        if self._packed is None:  # a layer that was built but never loaded
            self.pack()
        assert self._packed is not None
        return self._packed

    @property
    def _cell_bias(self) -> mx.array:
        bias = mx.zeros((self.weight.shape[0],), self.weight.dtype) if self.bias is None else self.bias
        return mx.concatenate([bias] * self._stride)


class Conv2d(nn.Module):
    """Convolve [T, M, I] along both axes to [T', M', O] with stride 1; weight [O, K, K, I]."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((out_channels, kernel_size, kernel_size, in_channels))
        self.bias = mx.zeros((out_channels,)) if bias else None
        self._padding = padding
        self._paired: PairedRows | None = None

    def __call__(self, x: mx.array) -> mx.array:
        if _by_hand(x):
            return self.finished(x, Finish(shift=None if self.bias is None else np.asarray(self.bias)))
        y = mx.conv2d(x[None], self.weight, padding=self._padding)[0]
        return y if self.bias is None else y + self.bias

    def finished(self, x: mx.array, finish: Finish, shortcut: mx.array | None = None) -> mx.array:
        """Convolve without the bias on a CPU and finish every span of the result while it is in the cache."""
        if self._paired is None:
            return cpu_products.windowed_plane(x, self.weight, self._padding, finish, shortcut)
        return self._paired(x, finish, shortcut)

    def pack(self) -> None:
        """Lay the weight out for the CPU, unless it is so wide that its products are fast as they are."""
        outputs, kernel, _, inputs = self.weight.shape
        if _by_hand(self.weight) and (kernel, self._padding) == (3, 1) and inputs > 1 and outputs < cpu_products.WIDE:
            self._paired = PairedRows(np.asarray(self.weight))


class ConvTranspose2d(nn.Module):
    """Upsample both axes of [T, M, I] as `ConvTranspose1d` does one; weight [O, K, K, I], no bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((out_channels, kernel_size, kernel_size, in_channels))
        self.bias = mx.zeros((out_channels,)) if bias else None
        self._stride, self._padding, self._output_padding = stride, padding, output_padding
        self.pack()

    def __call__(self, x: mx.array) -> mx.array:
        if _by_hand(x):
            return self.finished(x, Finish(shift=None if self.bias is None else np.asarray(self.bias)))
        taps, stride = self._taps, self._stride
        x = mx.pad(x, [(taps - 1, taps - 1), (taps - 1, taps - 1), (0, 0)])
        height, width = x.shape[0] - taps + 1, x.shape[1] - taps + 1
        reaching = [x[a : a + height, b : b + width] for a in range(taps) for b in range(taps)]
        cells = mx.concatenate(reaching, axis=-1) @ self._cells
        y = cells.reshape(height, width, stride, stride, -1).swapaxes(1, 2)
        y = self._cropped(y.reshape(height * stride, width * stride, -1))
        return y if self.bias is None else y + self.bias

    def finished(self, x: mx.array, finish: Finish, shortcut: mx.array | None = None) -> mx.array:
        """Upsample without the bias on a CPU and finish every span of the result while it is in the cache."""
        assert shortcut is None
        return self._cropped(cpu_products.upsample_plane(x, self._cells, self._taps, self._stride, finish))

    def pack(self) -> None:
        """Lay the weight out as [tap · tap · I, phase · phase · O], the earliest input first.

        A cell is stride × stride outputs. It is reached by the input at the same place and by the taps - 1 before it,
        in both axes: one product of all that reach it. The zeros between the inputs are never multiplied.
        """
        outputs, kernel, _, inputs = self.weight.shape
        taps, stride = self._taps, self._stride
        missing = (0, taps * stride - kernel)
        weight = mx.pad(self.weight, [(0, 0), missing, missing, (0, 0)])
        weight = weight.reshape(outputs, taps, stride, taps, stride, inputs)[:, ::-1, :, ::-1]
        self._cells = mx.contiguous(weight.transpose(1, 3, 5, 2, 4, 0).reshape(-1, stride * stride * outputs))

    @property
    def _taps(self) -> int:
        return -(-int(self.weight.shape[1]) // self._stride)

    def _cropped(self, y: mx.array) -> mx.array:
        """Cut the padding off all cells, and add the rows of an output padding beyond the reach of the kernel."""
        padding, kernel, beyond = self._padding, int(self.weight.shape[1]), self._output_padding
        ends = [n - (self._taps * self._stride - kernel) - padding + beyond for n in y.shape[:2]]
        short = [max(0, end - n) for end, n in zip(ends, y.shape[:2], strict=True)]
        if any(short):
            y = mx.pad(y, [(0, short[0]), (0, short[1]), (0, 0)])
        return y[padding : ends[0], padding : ends[1]]


class BatchNorm2d(nn.Module):
    """Normalise [T, M, C] by the running statistics: one scale and one shift per channel."""

    def __init__(self, num_features: int, eps: float = BATCH_NORM_EPS) -> None:
        super().__init__()
        self.weight = mx.ones((num_features,))
        self.bias = mx.zeros((num_features,))
        self.running_mean = mx.zeros((num_features,))
        self.running_var = mx.ones((num_features,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        scale, shift = self.scale_and_shift()
        return x * scale + shift

    def scale_and_shift(self) -> tuple[mx.array, mx.array]:
        """Return what the statistics amount to: [C] to multiply by and [C] to add."""
        scale = self.weight * mx.rsqrt(self.running_var + self._eps)
        return scale, self.bias - self.running_mean * scale


class GroupNorm(nn.Module):
    """Normalise [T, C] over time, each channel by itself: the only grouping HuBERT uses."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__()
        assert num_groups == num_channels
        self.weight = mx.ones((num_channels,))
        self.bias = mx.zeros((num_channels,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        if _by_hand(x):
            return self.by_hand(x)
        y = x.astype(mx.float32)  # the statistics of a minute of samples need it
        y = y - _time_mean(y)
        return (y * (self.weight * mx.rsqrt(_time_mean(y * y) + self._eps)) + self.bias).astype(x.dtype)

    def by_hand(self, x: mx.array, *, is_gelu: bool = False) -> mx.array:
        """Normalise on a CPU, and apply GELU if wanted."""
        return cpu_products.group_norm(x, self.weight, self.bias, self._eps, is_gelu=is_gelu)


class GLU(nn.Module):
    """Multiply one half of the channels of [T, 2·C] by the sigmoid of the other."""

    def __call__(self, x: mx.array) -> mx.array:
        signal, gate = mx.split(x, 2, axis=-1)
        return _sigmoid_gated(signal, gate)


class SiLU(nn.Module):
    """Multiply [T, C] by its sigmoid."""

    def __call__(self, x: mx.array) -> mx.array:
        return _sigmoid_gated(x, x)


class LeakyReLU(nn.Module):
    """Return x where positive, x / 100 elsewhere."""

    def __call__(self, x: mx.array) -> mx.array:
        return leaky_relu(x, FINAL_SLOPE)


class GRU(nn.Module):
    """Run gated recurrent units over [T, I] in both directions to [T, 2·H].

    The products with the input are one matrix product on the device. The recurrence runs on the host in numpy on
    every device: a step is too small for a kernel launch. Gates lie as in torch: reset, update, new.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        super().__init__()
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else 2 * hidden_size
            for end in (f"l{layer}", f"l{layer}_reverse"):
                self[f"weight_ih_{end}"] = mx.zeros((3 * hidden_size, inputs))
                self[f"weight_hh_{end}"] = mx.zeros((3 * hidden_size, hidden_size))
                self[f"bias_ih_{end}"] = mx.zeros((3 * hidden_size,))
                self[f"bias_hh_{end}"] = mx.zeros((3 * hidden_size,))
        self._layers = num_layers

    def __call__(self, x: mx.array, state: mx.array | None = None) -> mx.array:
        """Run from the forward state [H] of the first layer, None for zeros; backward always starts from zero."""
        for layer in range(self._layers):
            ends = (f"l{layer}", f"l{layer}_reverse")
            products = [mx.addmm(self[f"bias_ih_{end}"], x, self[f"weight_ih_{end}"].T) for end in ends]
            inputs, weights, biases = (
                [part.astype(mx.float32) for part in parts]
                for parts in (products, *([self[f"{name}_hh_{end}"] for end in ends] for name in ("weight", "bias")))
            )
            x = cpu_products.recurrent(inputs, weights, biases, state if layer == 0 else None).astype(x.dtype)
        return x


def gelu(x: mx.array) -> mx.array:
    """Apply the exact (erf) GELU."""
    return cpu_products.gelu(x) if _by_hand(x) else nn.gelu(x)


def gelu_of(layer: nn.Module, x: mx.array) -> mx.array:
    """Return GELU of what a layer makes of x; on a CPU where it is in the cache, for the layers that HuBERT uses."""
    if isinstance(layer, Linear) and layer.is_shared(x):
        return cpu_products.linear(x, layer.weight, layer.get("bias"), is_gelu=True)
    if isinstance(layer, Conv1d) and layer.is_windowed(x) and layer.bias is None:
        return layer.windowed(x, is_gelu=True)
    if isinstance(layer, GroupNorm) and _by_hand(x):
        return layer.by_hand(x, is_gelu=True)
    return gelu(layer(x))


def normalised_sum(norm: LayerNorm, x: mx.array, y: mx.array) -> mx.array:
    """Return the layer norm of x + y [T, C]."""
    if _by_hand(x):
        return cpu_products.normalised_sum(x, y, norm.weight, norm.bias, norm.eps)
    z: mx.array = norm(x + y)
    return z


def conv_norm_relu(steps: list[nn.Module], x: mx.array, shortcut: mx.array | None = None) -> mx.array:
    """Run a convolution without bias, BatchNorm2d and ReLU, the three `steps`, and add the shortcut."""
    conv, norm, rectify = steps
    assert isinstance(conv, Conv2d | ConvTranspose2d)
    assert isinstance(norm, BatchNorm2d)
    if not _by_hand(x):
        y: mx.array = rectify(norm(conv(x)))
        return y if shortcut is None else y + shortcut
    scale, shift = (np.asarray(a) for a in norm.scale_and_shift())
    return conv.finished(x, Finish(scale, shift, is_rectified=True), shortcut)


def larger_of_pairs(x: mx.array) -> mx.array:
    """Halve the time of [B, L, C] by the larger of every two."""
    return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2]).max(axis=2)


def leaky_relu(x: mx.array, slope: float) -> mx.array:
    """Return x where positive, slope · x elsewhere; slope in 0–1."""
    return mx.maximum(x, slope * x)


def gated(signal: mx.array, gate: mx.array) -> mx.array:
    """Return tanh(signal) · sigmoid(gate), the activation of WaveNet."""
    return cpu_products.gated(signal, gate) if _by_hand(signal) else mx.tanh(signal) * mx.sigmoid(gate)


def frame_mask(frames: int, valid: int, dtype: mx.Dtype) -> mx.array:
    """Return [T, 1]: 1 for the first `valid` frames, 0 for the rest."""
    return (mx.arange(frames) < valid).astype(dtype)[:, None]


def mean_pool(x: mx.array) -> mx.array:
    """Halve both axes of [T, M, C] by the mean of 2 × 2."""
    height, width, channels = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attend with queries, keys and values [H, T, D], scale 1 / √D; returns [H, T, D]."""
    if _by_hand(q):
        return cpu_products.attention(q, k, v)
    scale = q.shape[-1] ** -0.5
    return mx.fast.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)[0]


def relative_attention(
    q: mx.array, k: mx.array, v: mx.array, near_keys: mx.array, near_values: mx.array, valid: int
) -> mx.array:
    """Attend as `attention` does, with learnt terms for keys at most W frames away.

    near_keys, near_values: [2W + 1, D], shared by the heads; row r belongs to the key r - W frames ahead. Keys from
    `valid` on are masked. Only the 2W + 1 diagonals of the relative terms are ever computed.
    Source: Shaw et al. 2018; RVC infer/module/attentions.py @ 4338f12.
    """
    if _by_hand(q):
        return cpu_products.relative_attention(q, k, v, near_keys, near_values, valid)
    frames, reach = q.shape[1], near_keys.shape[0] // 2
    masked = mx.where(mx.arange(frames) < valid, 0.0, -1e4).astype(q.dtype)
    blocks = []
    for start, rows in _query_blocks(q * q.shape[-1] ** -0.5):
        row = mx.arange(rows.shape[1])[:, None]
        column = row + mx.arange(start - reach, start + reach + 1)  # [rows, 2W + 1]
        inside = (column >= 0) & (column < frames)
        column = mx.clip(column, 0, frames - 1)
        scores = rows @ k.swapaxes(1, 2)
        scores = scores.at[:, row, column].add(mx.where(inside, rows @ near_keys.T, 0.0))
        weights = mx.softmax(scores + masked, axis=-1, precise=True)
        near = mx.take_along_axis(weights, mx.broadcast_to(column, (q.shape[0], *column.shape)), axis=2)
        blocks.append(weights @ v + mx.where(inside, near, 0.0) @ near_values)
    return mx.concatenate(blocks, axis=1)


def fused(network: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """Return the network; on a GPU as one whose elementwise operations are fused between the convolutions.

    It must take arrays only. Each shape of them is traced once and kept, and so are the weights at that time.
    """

    def run(*arrays: mx.array) -> mx.array:  # no module: as an attribute it is no second child of its owner
        return network(*arrays)

    # on a CPU fusing needs a compiler, and the layers leave little to fuse
    chosen: Callable[..., mx.array] = run if _on_cpu() else mx.compile(run)
    return chosen


def span_rows(channels: int) -> int:
    """Return how many rows of a signal of `channels` to compute at a time: on a GPU all of them."""
    return SPAN_FLOATS // channels if _on_cpu() else sys.maxsize


def _sigmoid_gated(signal: mx.array, gate: mx.array) -> mx.array:
    return cpu_products.sigmoid_gated(signal, gate) if _by_hand(signal) else signal * mx.sigmoid(gate)


def _on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def _time_mean(x: mx.array) -> mx.array:
    """Average [T, C] over T in two steps: one running float32 sum loses four digits over a minute of samples."""
    (frames, channels), block = x.shape, 512
    blocks = frames // block
    head, tail = x[: blocks * block].reshape(blocks, block, channels), x[blocks * block :]
    return (head.sum(axis=1).sum(axis=0) + tail.sum(axis=0)) / frames


def _query_blocks(q: mx.array) -> list[tuple[int, mx.array]]:
    """Cut the queries so that one block of scores stays small; memory does not grow with T²."""
    heads, frames, _ = q.shape
    step = max(16, WINDOW_FLOATS // (heads * frames))
    return [(start, q[:, start : start + step]) for start in range(0, frames, step)]


def _by_hand(x: mx.array) -> bool:
    """Say whether the formulations for a CPU compute this: they are float32, half precision takes MLX's operations."""
    return _on_cpu() and bool(x.dtype == mx.float32)


def _host(x: mx.array) -> F32:
    """Return the values of an array in float32: a view of its memory if that is what it holds."""
    values: F32 = np.asarray(x.astype(mx.float32))
    return values


def _fills_groups(_path: str, layer: nn.Module) -> bool:
    return isinstance(layer, Linear) and layer.weight.shape[1] % QUANTIZE_GROUP == 0

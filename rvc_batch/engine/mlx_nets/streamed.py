"""Stacks of convolutions over long signals on a CPU: a span of rows at a time, two spans at once.

Three things make MLX fast there, and all three are here. A convolution of stride 1 is a few matrix products over views
of its input, without a copy (`PhaseProduct`). A stack runs over spans short enough to stay in the cache; a span brings
the rows its convolutions reach for and loses them on the way (`Span`), so that spans laid side by side equal the whole
signal. Two spans run on two streams, each with a BLAS of one thread: OpenBLAS shares out tall, narrow products badly
(`over_spans`). On a GPU one span is the whole signal and the convolutions are MLX's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.lib.stride_tricks import as_strided

from rvc_batch.engine.blas import blas_threads, threads_are_ours
from rvc_batch.engine.mlx_nets.cpu_products import blank, even_step, scratch, share, write_gelu
from rvc_batch.engine.types import F32

__all__ = ["PhaseProduct", "Span", "lazily_windowed", "over_spans", "rows_between", "windowed"]

WINDOW_FLOATS = 1 << 20  # of windows gathered per thread; shorter products repack their weights too often
SPAN_FLOATS = 1 << 19  # 2 MB of activations per span: half of it costs 4 % more, an eighth 25 %
NARROW = 16.0  # columns; a product this narrow runs at half the speed of a wide one


@dataclass(frozen=True)
class Span:
    """Rows first … last of a signal of `length` rows [length, C]; rows outside of the signal are never held."""

    rows: mx.array
    first: int
    length: int

    @property
    def last(self) -> int:
        """Return the position after the last row."""
        return self.first + int(self.rows.shape[0])

    @property
    def begins(self) -> bool:
        """Say whether the signal begins with this span."""
        return self.first == 0

    @property
    def ends(self) -> bool:
        """Say whether the signal ends with this span."""
        return self.last == self.length

    def at(self, other: Span) -> Span:
        """Return the rows of this span at the positions of `other`, which lies inside."""
        return self.cut(other.first, other.last)

    def cut(self, first: int, last: int) -> Span:
        """Return rows first … last."""
        return Span(self.rows[first - self.first : last - self.first], first, self.length)

    def map(self, function: Callable[[mx.array], mx.array]) -> Span:
        """Apply a function of single rows."""
        return Span(function(self.rows), self.first, self.length)


class PhaseProduct:
    """A convolution of stride 1, [T, I] → [T − dilation · (K − 1), O], as P matrix products without a copied window.

    Lay the input out in rows of P taps side by side: the windows that begin at a multiple of P are the rows of this
    matrix, the next ones those of the same matrix begun one tap later, and so on for P phases. Each phase is one
    product with leading dimension P·I. Narrow outputs are computed `group` at a time: their windows are joined and the
    weight repeated on a diagonal, which wastes some products and makes the rest run faster. A dilated convolution is
    the same after its residues have been laid one behind the other.
    """

    def __init__(self, weight: F32, dilation: int = 1, dtype: mx.Dtype = mx.float32) -> None:
        """Pack weight [O, K, I] for inputs of `dtype`."""
        self.outputs, self.kernel, inputs = weight.shape
        self.dilation = dilation
        self.group = _group(self.kernel, self.outputs)
        self.taps = self.kernel + self.group - 1
        self.unit = self.taps * dilation  # rows that come out of one row of every phase
        banded = np.zeros((self.taps, inputs, self.group, self.outputs), np.float32)
        for g in range(self.group):
            banded[g : g + self.kernel, :, g] = weight.transpose(1, 2, 0)
        # a weight of the rank of the windows: MLX would copy them to flatten them for a plain matrix
        self._weight = mx.array(banded.reshape(1, self.taps * inputs, self.group * self.outputs)).astype(dtype)
        mx.eval(self._weight)

    def rows_in(self, rows_out: int) -> int:
        """Return how many rows must go in for at least `rows_out` to come out without padding."""
        blocks = -(-rows_out // self.unit)
        return int((blocks + 1) * self.unit if self.dilation > 1 else blocks * self.unit + self.kernel - 1)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        """Return as many whole units of rows as `x` has input for, plus `bias` [O]."""
        blocks = (x.shape[0] - (0 if self.dilation > 1 else self.kernel - 1)) // self.unit
        y = self._dilated(x, blocks - 1) if self.dilation > 1 else self._plain(x, blocks)
        return (y + bias).reshape(-1, self.outputs)  # the sum also brings the rows into order

    def _plain(self, x: mx.array, blocks: int) -> mx.array:
        y = self._products(x, blocks).reshape(-1, blocks, self.group, self.outputs)
        return y.swapaxes(0, 1)

    def _dilated(self, x: mx.array, blocks: int) -> mx.array:
        d, group, outputs = self.dilation, self.group, self.outputs
        residues = x[: (blocks + 1) * self.unit].reshape(-1, d, x.shape[1]).swapaxes(0, 1)
        rows = d * (blocks + 1) - 1  # the last row of each residue but the last runs into the next and is dropped
        y = self._products(mx.contiguous(residues), rows)
        strides = (group * outputs, rows * group * outputs, outputs, (blocks + 1) * group * outputs, 1)
        return mx.as_strided(y, (blocks, self.taps // group, group, d, outputs), strides)

    def _products(self, x: mx.array, rows: int) -> mx.array:
        """Return [P, rows, group · O] for contiguous input."""
        inputs = x.shape[-1]
        row, begin = self.taps * inputs, self.group * inputs
        windows = mx.as_strided(x, (self.taps // self.group, rows, row), (begin, row, 1))
        return windows @ self._weight


def windowed(
    x: mx.array, weight: mx.array, *, stride: int, dilation: int, groups: int, is_gelu: bool = False
) -> mx.array:
    """Convolve [T, I], padding included, with weight [O, K, I / groups], for strides and groups; apply GELU if wanted.

    The windows of some rows are copied side by side, multiplied, and the next rows follow. Strided windows overlap
    little, so the copy is small; a window without dilation is one run of memory. Spans are rows of one group.
    """
    outputs, kernel, inputs = weight.shape
    length = (x.shape[0] - dilation * (kernel - 1) - 1) // stride + 1
    y, out = blank(length, outputs)
    source = np.ascontiguousarray(np.asarray(x).reshape(-1, groups, inputs).swapaxes(0, 1))  # [G, T, I / G]
    mx.eval(weights := weight.reshape(groups, outputs // groups, kernel * inputs))
    out = out.reshape(length, groups, -1).swapaxes(0, 1)
    step = even_step(length, max(1, WINDOW_FLOATS // (kernel * inputs)))
    spans = -(-length // step)

    def convolve(first: int, last: int) -> None:
        for group, span in (divmod(i, spans) for i in range(first, last)):
            rows = slice(span * step, min((span + 1) * step, length))
            begin = source[group, rows.start * stride :]
            a, b = begin.strides
            n_rows = rows.stop - rows.start
            windows, gathered = scratch(n_rows, kernel * inputs)
            if dilation == 1:
                np.copyto(gathered, as_strided(begin, gathered.shape, (stride * a, b)))
            else:
                taps = as_strided(begin, (n_rows, kernel, inputs), (stride * a, dilation * a, b))
                np.copyto(gathered.reshape(taps.shape), taps)
            product = np.asarray(windows @ weights[group].T)
            if is_gelu:
                write_gelu(product, out[group, rows])
            else:
                out[group, rows] = product

    share(groups * spans, 1, convolve)
    return y


def lazily_windowed(x: mx.array, weight: mx.array, stride: int, dilation: int, groups: int) -> mx.array:
    """Return what `windowed` does as a graph of MLX operations: for spans that are evaluated later, two at once."""
    outputs, kernel, inputs = weight.shape
    length = (x.shape[0] - dilation * (kernel - 1) - 1) // stride + 1
    grouped = mx.contiguous(x.reshape(-1, groups, inputs).swapaxes(0, 1))  # [G, T, I / G]
    strides = (x.shape[0] * inputs, stride * inputs, dilation * inputs, 1)
    windows = mx.as_strided(grouped, (groups, length, kernel, inputs), strides).reshape(groups, length, -1)
    products = windows @ weight.reshape(groups, -1, kernel * inputs).swapaxes(1, 2)
    return products.swapaxes(0, 1).reshape(length, outputs)


def rows_between(x: mx.array, first: int, last: int) -> mx.array:
    """Return rows first … last of a whole signal, zero where they lie outside."""
    low, high = max(first, 0), min(last, x.shape[0])
    rows = x[low:high]
    return rows if (low, high) == (first, last) else mx.pad(rows, [(low - first, last - high), (0, 0)])


def over_spans(length: int, rows: int, render: Callable[[int, int], mx.array]) -> mx.array:
    """Return rows 0 … length of a signal from `render(first, last)`, which is called for spans of about `rows` rows.

    On a CPU, two spans are evaluated together on two streams; `rows` of at least `length` makes it one call.
    """
    if rows >= length:
        return render(0, length)
    pairs = max(1, round(length / (2 * rows)))
    borders = [length * i // (2 * pairs) for i in range(2 * pairs + 1)]
    pieces: list[mx.array] = []
    with blas_threads(1):
        for first, middle, last in zip(borders[::2], borders[1::2], borders[2::2], strict=False):
            pair = []
            for stream, span in zip(_streams(), ((first, middle), (middle, last)), strict=True):
                with mx.stream(stream):
                    pair.append(render(*span))
            mx.async_eval(pair)  # both in one call: one after the other they hardly overlap
            pieces += pair
        y = mx.concatenate(pieces)
        mx.eval(y)
    return y


@functools.cache
def _streams() -> tuple[mx.ThreadLocalStream, mx.ThreadLocalStream]:
    """Return two streams of the CPU, or the same one twice if the threads of the BLAS cannot be divided among two."""
    first = mx.new_thread_local_stream(mx.cpu)
    return first, (mx.new_thread_local_stream(mx.cpu) if threads_are_ours() else first)


def _group(kernel: int, outputs: int) -> int:
    """Return how many outputs to compute per row: wasted products against narrow ones."""
    choices = [g for g in range(1, kernel) if (kernel - 1) % g == 0] or [1]
    return min(choices, key=lambda g: (kernel + g - 1) / kernel + NARROW / (g * outputs))

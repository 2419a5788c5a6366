"""How layers are computed on a CPU: matrix products by MLX, everything else by numpy, spans of rows on all cores.

MLX runs one operation of a stream on one thread and without vector instructions; OpenBLAS shares out small and narrow
products badly. So every layer here is cut into spans that do not depend on each other, and each thread takes a span
through product and elementwise passes while it is in the cache (`share`), with a BLAS of one thread. numpy reads and
writes the memory of MLX arrays without a copy (`blank`): only arrays made here, before anybody else sees them.
`layers.py` decides when these functions are used; MLX's own operations are the reference they are tested against. It is
long because the formulations for a CPU stand in one place, as the choice between them does.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.lib.stride_tricks import as_strided

from rvc_batch.engine.blas import blas_threads, threads_are_ours
from rvc_batch.engine.types import F32

__all__ = [
    "Finish",
    "PairedRows",
    "attention",
    "depthwise",
    "gated",
    "gelu",
    "group_norm",
    "linear",
    "normalised_sum",
    "recurrent",
    "relative_attention",
    "sigmoid_gated",
    "upsample_plane",
    "windowed_plane",
]

SPAN_FLOATS = 1 << 20  # 4 MB of gathered windows or scores per thread; shorter products repack their weights too often
BLOCK_FLOATS = 1 << 17  # 512 KB: long enough that threads do not queue for the interpreter between two passes
SUM_ROWS = 512  # rows added up in float32 before float64 takes over: a running sum loses four digits over a minute
LEAST_ROWS = 512  # of a product with many outputs: laying out its weight costs as much as 30 rows
WIDE = 256  # outputs
MASKED = -1e4  # the score of a key that does not count: its weight is zero
NARROW = 24  # columns; a product this narrow runs at half the speed of a wide one

_threads_own = threading.local()  # the memory of `scratch`


def share(count: int, step: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) for spans of `step` items until `count` is covered, on all cores; wait for all.

    The calling thread works too. Spans are taken in order by whoever is free. Where the BLAS decides its threads
    itself, the calling thread works alone and leaves the cores to it.
    """
    spans = itertools.count()

    def take() -> None:
        while (first := step * next(spans)) < count:
            work(first, min(first + step, count))

    helpers = min(threads() - 1, -(-count // step) - 1)
    if helpers <= 0:
        take()
        return
    with blas_threads(1):
        futures = [_pool().submit(take) for _ in range(helpers)]
        take()
        for future in futures:
            if not future.cancel():  # a thread that has not even begun has nothing left to do
                future.result()


def threads() -> int:
    """Return how many threads share the work: the cores this process may use."""
    if not threads_are_ours():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="layers")


def blank(*shape: int) -> tuple[mx.array, F32]:
    """Return a new MLX array and its memory as a numpy array to be written."""
    x = mx.zeros(shape)
    return x, memory(x)


def scratch(*shape: int) -> tuple[mx.array, F32]:
    """Return what `blank` does in memory that this thread uses again: until its next call, with anything in it."""
    size = math.prod(shape)
    if size > getattr(_threads_own, "size", 0):
        _threads_own.size, (_threads_own.array, _threads_own.memory) = size, blank(size)
    return _threads_own.array[:size].reshape(shape), _threads_own.memory[:size].reshape(shape)


def memory(x: mx.array) -> F32:
    """Return the memory of an MLX array, evaluated. Write to it only if nobody else can hold the array."""
    mx.eval(x)
    return np.array(x, copy=False)


def even_step(count: int, most: int) -> int:
    """Return a step of at most `most` items that gives every thread a span of about the same length."""
    return -(-count // max(-(-count // most), min(threads(), count)))


# erfc(a / √2) = p(a)^-32 for a ≥ 0, p of degree 5, fitted for the least error of GELU: 1.5e-7, in float32 7e-7. After
# Abramowitz and Stegun 7.1.28. Multiplications only: numpy's exp and tanh cost ten of them where there is no AVX-512.
ERFC_ROOT = (0.0249334962, 0.0102583486, 0.00139052057, -8.00294727e-05, 1.98655604e-05)


def gelu(x: mx.array) -> mx.array:
    """Apply the exact GELU to any shape, within 7e-7."""
    y, out = blank(*x.shape)
    values, results = np.asarray(x).reshape(-1), out.reshape(-1)
    share(values.size, BLOCK_FLOATS, lambda first, last: write_gelu(values[first:last], results[first:last]))
    return y


def write_gelu(x: F32, out: F32) -> None:
    """Write x/2 + |x|/2 · (1 − erfc(|x|/√2)), [N] or [T, C], a block that stays in the cache at a time."""
    step = max(1, BLOCK_FLOATS // (x.size // max(x.shape[0], 1) or 1))
    for first in range(0, x.shape[0], step):
        _write_gelu(x[first : first + step], out[first : first + step])


def _write_gelu(x: F32, out: F32) -> None:
    size = np.abs(x)
    root = size * np.float32(ERFC_ROOT[-1])
    for coefficient in ERFC_ROOT[-2::-1]:
        root += np.float32(coefficient)
        root *= size
    root += np.float32(1)
    with np.errstate(over="ignore"):  # beyond |x| = 50: erfc is 0 there
        for _ in range(5):
            np.multiply(root, root, out=root)
    np.reciprocal(root, out=root)
    np.subtract(np.float32(1), root, out=root)
    root *= size
    root += x
    np.multiply(root, np.float32(0.5), out=out)


def gated(signal: mx.array, gate: mx.array) -> mx.array:
    """Return tanh(signal) · sigmoid(gate); MLX takes 15 ns for each of the two, numpy a tenth."""
    return _gated(signal, gate, np.tanh)


def sigmoid_gated(signal: mx.array, gate: mx.array) -> mx.array:
    """Return signal · sigmoid(gate)."""
    return _gated(signal, gate, None)


def _gated(signal: mx.array, gate: mx.array, activation: Callable[..., F32] | None) -> mx.array:
    y, out = blank(*signal.shape)
    mx.eval(signal, gate)
    signals, gates = np.asarray(signal), np.asarray(gate)

    def multiply(first: int, last: int) -> None:
        g = gates[first:last] * np.float32(0.5)  # sigmoid(a) = (tanh(a / 2) + 1) / 2
        np.tanh(g, out=g)
        g += np.float32(1)
        g *= np.float32(0.5)
        product = signals[first:last]
        if activation is not None:
            product = activation(product, out=out[first:last])
        np.multiply(product, g, out=out[first:last])

    share(signal.shape[0], max(1, BLOCK_FLOATS // signal.shape[1]), multiply)
    return y


def group_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: float, *, is_gelu: bool = False) -> mx.array:
    """Normalise every channel of [T, C] over the whole time; apply GELU on the way if wanted."""
    y, out = blank(*x.shape)
    rows = np.asarray(x)
    mean = _time_mean(rows, lambda block: block)
    variance = _time_mean(rows, lambda block: np.square(block - mean))
    scale = (np.asarray(weight) / np.sqrt(variance + eps)).astype(np.float32)

    def normalise(first: int, last: int) -> None:
        block = rows[first:last] - mean
        block *= scale
        block += np.asarray(bias)
        if is_gelu:
            write_gelu(block, out[first:last])
        else:
            out[first:last] = block

    share(x.shape[0], max(1, BLOCK_FLOATS // x.shape[1]), normalise)
    return y


def _time_mean(rows: F32, function: Callable[[F32], F32]) -> F32:
    """Average a function of [T, C] over T: short sums in float32, those added up in float64."""
    sums = np.zeros((-(-rows.shape[0] // SUM_ROWS), rows.shape[1]))

    def add(first: int, last: int) -> None:
        sums[first // SUM_ROWS] = function(rows[first:last]).sum(axis=0)

    share(rows.shape[0], SUM_ROWS, add)
    mean: F32 = (sums.sum(axis=0) / rows.shape[0]).astype(np.float32)
    return mean


def normalised_sum(x: mx.array, y: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """Return the layer norm of x + y, both [T, C]: every row by its own mean and variance."""
    z, out = blank(*x.shape)
    mx.eval(x, y, weight, bias)
    rows, others, scale, shift = (np.asarray(a) for a in (x, y, weight, bias))
    width = np.float32(x.shape[1])

    def normalise(first: int, last: int) -> None:
        block = rows[first:last] + others[first:last]
        block -= block.sum(axis=1, keepdims=True) / width
        variance = np.einsum("tc,tc->t", block, block)[:, None] / width
        block /= np.sqrt(variance + np.float32(eps))
        block *= scale
        np.add(block, shift, out=out[first:last])

    share(x.shape[0], even_step(x.shape[0], max(1, BLOCK_FLOATS // x.shape[1])), normalise)
    return z


def _exponentials(scores: F32, out: F32) -> F32:
    """Write exp(score − greatest of its row) and return the sums of the rows [T, 1]."""
    np.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    sums: F32 = out.sum(axis=-1, keepdims=True)
    return sums


def linear(x: mx.array, weight: mx.array, bias: mx.array | None, *, is_gelu: bool = False) -> mx.array:
    """Multiply [T, I] by weight [O, I], add the bias, apply GELU if wanted; every thread takes some of the outputs."""
    y, out = blank(x.shape[0], weight.shape[0])
    mx.eval(x, weight)
    shift = None if bias is None else np.asarray(bias)

    def multiply(first: int, last: int) -> None:
        product = np.asarray(x @ weight[first:last].T)
        columns = out[:, first:last]
        if is_gelu:
            write_gelu(product if shift is None else product + shift[first:last], columns)
        else:
            np.add(product, 0 if shift is None else shift[first:last], out=columns)

    share(weight.shape[0], even_step(weight.shape[0], weight.shape[0]), multiply)
    return y


def depthwise(x: mx.array, weight: mx.array) -> mx.array:
    """Convolve [T + K - 1, C], padding included, with weight [C, K, 1], each channel by itself, to [T, C].

    A sum of shifted rows: a product with one column per channel would be all overhead.
    """
    channels, kernel, _ = weight.shape
    y, out = blank(x.shape[0] - kernel + 1, channels)
    rows, taps = np.asarray(x), np.ascontiguousarray(np.asarray(weight)[:, :, 0].T)

    def add(first: int, last: int) -> None:
        block = out[first:last]
        np.multiply(rows[first:last], taps[0], out=block)
        product = np.empty_like(block)
        for tap in range(1, kernel):
            np.multiply(rows[first + tap : last + tap], taps[tap], out=product)
            block += product

    share(out.shape[0], max(1, BLOCK_FLOATS // channels), add)
    return y


def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attend with queries, keys and values [H, T, D], scale 1 / √D; spans are some queries of one head.

    The weights stay exponentials until they have met the values: dividing [T, D] is cheaper than dividing [T, T].
    """
    heads, frames, size = q.shape
    y, out = blank(heads, frames, size)
    q = q * size**-0.5
    mx.eval(q, k, v)
    several = max(1, SPAN_FLOATS // frames**2)  # short sequences: some heads at once, because a call costs 0.1 ms
    step_heads = even_step(heads, several)
    step = frames if several > 1 else even_step(frames, max(16, SPAN_FLOATS // frames))
    spans = -(-frames // step)

    def attend(first: int, last: int) -> None:
        for part, span in (divmod(i, spans) for i in range(first, last)):
            some = slice(part * step_heads, min((part + 1) * step_heads, heads))
            rows = slice(span * step, min((span + 1) * step, frames))
            scores = q[some, rows] @ k[some].swapaxes(1, 2)
            weights = memory(scores)
            sums = _exponentials(weights, weights)
            np.divide(np.asarray(scores @ v[some]), sums, out=out[some, rows])

    share(-(-heads // step_heads) * spans, 1, attend)
    return y


def relative_attention(
    q: mx.array, k: mx.array, v: mx.array, near_keys: mx.array, near_values: mx.array, valid: int
) -> mx.array:
    """Attend as `attention` does, with terms [2W + 1, D] for keys at most W frames away and keys from `valid` masked.

    The band of the scores and of the weights that these terms touch is read and written by position.
    """
    heads, frames, size = q.shape
    y, out = blank(heads, frames, size)
    q = q * size**-0.5
    mx.eval(q, k, v)
    queries, keys, values = (np.asarray(a) for a in (q, near_keys, near_values))
    offsets = np.arange(keys.shape[0]) - keys.shape[0] // 2
    step = even_step(frames, max(16, SPAN_FLOATS // frames))
    spans = -(-frames // step)

    def attend(first: int, last: int) -> None:
        for head, span in (divmod(i, spans) for i in range(first, last)):
            rows = slice(span * step, min((span + 1) * step, frames))
            columns = np.arange(rows.start, rows.stop)[:, None] + offsets
            row, near = np.nonzero((columns >= 0) & (columns < frames))
            band = row, columns[row, near]
            products = q[head, rows] @ k[head].T
            weights = memory(products)
            weights[band] += (queries[head, rows] @ keys.T)[row, near]
            weights[:, valid:] = MASKED
            sums = _exponentials(weights, weights)
            near_weights = np.zeros(columns.shape, np.float32)
            near_weights[row, near] = weights[band]
            out[head, rows] = np.asarray(products @ v[head])
            out[head, rows] += near_weights @ values
            out[head, rows] /= sums

    share(heads * spans, 1, attend)
    return y


def recurrent(
    inputs: list[mx.array], weights: list[mx.array], biases: list[mx.array], state: mx.array | None
) -> mx.array:
    """Run a GRU forward and backward over what its input amounts to, twice [T, 3H], from the forward state; [T, 2H]."""
    mx.eval(inputs)
    gates = np.stack([np.asarray(inputs[0]), np.asarray(inputs[1])[::-1]], axis=1)  # [T, 2, 3H]
    initial = np.zeros((2, weights[0].shape[1]), np.float32)
    if state is not None:
        initial[0] = np.asarray(state)
    hidden = _recur(gates, [np.asarray(w) for w in weights], np.stack([np.asarray(b) for b in biases]), initial)
    return mx.array(np.concatenate([hidden[:, 0], hidden[::-1, 1]], axis=1))


def _recur(gates: F32, weights: list[F32], biases: F32, state: F32) -> F32:
    """Step both directions together from `state` [2, H]: gates [T, 2, 3H] hold the input's part; returns [T, 2, H]."""
    hidden_size = gates.shape[2] // 3
    states = np.empty((gates.shape[0], 2, hidden_size), np.float32)
    recurrent = np.empty((2, 3 * hidden_size), np.float32)
    half = np.float32(0.5)
    for t, gate in enumerate(gates):
        np.dot(weights[0], state[0], out=recurrent[0])
        np.dot(weights[1], state[1], out=recurrent[1])
        recurrent += biases
        # sigmoid(a) = tanh(a / 2) / 2 + 1/2
        reset_update = np.tanh((gate[:, : 2 * hidden_size] + recurrent[:, : 2 * hidden_size]) * half) * half + half
        reset, update = reset_update[:, :hidden_size], reset_update[:, hidden_size:]
        new = np.tanh(gate[:, 2 * hidden_size :] + reset * recurrent[:, 2 * hidden_size :])
        state = new + update * (state - new)
        states[t] = state
    return states


@dataclass(frozen=True)
class Finish:
    """What follows a convolution while its rows are in the cache: y·scale + shift, ReLU, + shortcut."""

    scale: F32 | None = None  # [O]
    shift: F32 | None = None  # [O]
    is_rectified: bool = False

    def of(self, outs: slice) -> Finish:
        """Return what follows for some of the outputs."""
        scale, shift = (None if a is None else a[outs] for a in (self.scale, self.shift))
        return Finish(scale, shift, self.is_rectified)

    def __call__(self, y: F32, out: F32, shortcut: F32 | None) -> None:
        """Finish rows [..., n·O] into `out`; y is used up."""
        # numpy is slow on short rows: one long row of repeated channels; and maximum costs three additions: y/2 + |y|/2
        half = np.float32(0.5 if self.is_rectified else 1)
        if self.scale is not None or self.is_rectified:
            y *= half if self.scale is None else np.resize(self.scale * half, y.shape[-1])
        if self.shift is not None:
            y += np.resize(self.shift * half, y.shape[-1])
        if self.is_rectified:
            np.abs(y, out=out)
            out += y
        else:
            np.copyto(out, y)
        if shortcut is not None:
            out += shortcut


class PairedRows:
    """A 3 × 3 convolution of [T, M, I], padding 1, two rows of the output at a time: four products instead of six.

    The three taps along time are Winograd's F(2, 3): of four neighbouring rows d, the products of d0 − d2, d1 + d2,
    d2 − d1 and d1 − d3 with sums of the taps add up to both outputs. Along the mel axis the windows of `group`
    neighbours are joined and the weight repeated on a diagonal, so that narrow products become wide ones. Both copies
    are one: the differences are written as windows. Source: Winograd 1980; Lavin and Gray 2016.
    """

    def __init__(self, weight: F32) -> None:
        """Pack weight [O, 3, 3, I]."""
        self.outputs, _, _, inputs = weight.shape
        self.group = min(range(1, 17), key=lambda g: (g + 2) / 3 + NARROW / (g * self.outputs))
        before, here, after = (weight[:, i].transpose(1, 2, 0) for i in range(3))  # [3, I, O]
        parts = (before, (before + here + after) / 2, (before - here + after) / 2, after)
        banded = np.zeros((4, self.group + 2, inputs, self.group, self.outputs), np.float32)
        for g in range(self.group):
            banded[:, g : g + 3, :, g] = np.stack(parts)
        self._weight = mx.array(banded.reshape(4, (self.group + 2) * inputs, self.group * self.outputs))
        mx.eval(self._weight)

    def __call__(self, x: mx.array, finish: Finish, shortcut: mx.array | None) -> mx.array:
        """Return [T, M, O]."""
        height, width, inputs = x.shape
        y, out = blank(height, width, self.outputs)
        lines = out.reshape(height, -1)
        source, added = np.asarray(x), None if shortcut is None else np.asarray(shortcut).reshape(height, -1)
        groups = -(-width // self.group)
        window = (self.group + 2) * inputs
        pairs = -(-height // 2)

        def convolve(first: int, last: int) -> None:
            top, bottom = 2 * first, min(2 * last, height)
            padded = np.zeros((2 * (last - first) + 2, groups * self.group + 2, inputs), np.float32)
            low, high = max(top - 1, 0), min(bottom + 1, height)
            padded[low - top + 1 : high - top + 1, 1 : width + 1] = source[low:high]
            a, b, c = padded.strides
            d = as_strided(padded, (4, last - first, groups, window), (a, 2 * a, self.group * b, c))
            parts, written = scratch(4, last - first, groups, window)
            np.subtract(d[0], d[2], out=written[0])
            np.add(d[1], d[2], out=written[1])
            np.subtract(d[2], d[1], out=written[2])
            np.subtract(d[1], d[3], out=written[3])
            products = memory(parts.reshape(4, -1, window) @ self._weight)
            p = products.reshape(4, last - first, -1)[..., : width * self.outputs]
            p[0] += p[1]
            p[0] += p[2]
            p[1] -= p[2]
            p[1] -= p[3]
            for row in range(2):
                rows = slice(top + row, bottom, 2)
                to = lines[rows]
                finish(p[row, : to.shape[0]], to, None if added is None else added[rows])

        share(pairs, even_step(pairs, max(1, SPAN_FLOATS // (4 * groups * window))), convolve)
        return y


def windowed_plane(
    x: mx.array, weight: mx.array, padding: int, finish: Finish, shortcut: mx.array | None = None
) -> mx.array:
    """Convolve [T, M, I] with any weight [O, K, K, I]: for kernels of 1 and for products that are wide by themselves.

    The windows of some rows are gathered and multiplied. A short plane with many channels is shared out by outputs,
    because a product of few rows spends its time on laying out the weight; all others by rows.
    """
    outputs, kernel, _, inputs = weight.shape
    source = np.asarray(x)
    if padding:
        source = np.pad(source, [(padding, padding), (padding, padding), (0, 0)])
    height, width = source.shape[0] - kernel + 1, source.shape[1] - kernel + 1
    window = kernel * kernel * inputs
    y, out = blank(height, width, outputs)
    added = None if shortcut is None else np.asarray(shortcut)
    mx.eval(flat := weight.reshape(outputs, window))

    step = max(1, SPAN_FLOATS // window // width, LEAST_ROWS // width)
    is_by_outputs = outputs >= WIDE and step * threads() > height
    columns = even_step(outputs, outputs) if is_by_outputs else outputs
    step = step if is_by_outputs else even_step(height, step)
    spans = -(-height // step)

    def convolve(first: int, last: int) -> None:
        for part, span in (divmod(i, spans) for i in range(first, last)):
            rows = slice(span * step, min((span + 1) * step, height))
            outs = slice(part * columns, min((part + 1) * columns, outputs))
            n_rows = rows.stop - rows.start
            begin = source[rows.start :]
            a, b, c = begin.strides
            windows, gathered = scratch(n_rows * width, window)
            shape = (n_rows, width, kernel, kernel * inputs)
            np.copyto(gathered.reshape(shape), as_strided(begin, shape, (a, b, a, c)))
            products = memory(windows @ flat[outs].T).reshape(n_rows, width, -1)
            finish.of(outs)(products, out[rows, :, outs], None if added is None else added[rows, :, outs])

    share(-(-outputs // columns) * spans, 1, convolve)
    return y


def upsample_plane(x: mx.array, weight: mx.array, taps: int, stride: int, finish: Finish) -> mx.array:
    """Return all stride × stride cells that the inputs [T, M, I] reach, side by side.

    weight: [tap · tap · I, phase · phase · O], as `layers.cell_weight` lays it out. [(T + taps − 1) · stride, …, O].
    """
    mx.eval(weight)
    source = np.pad(np.asarray(x), [(taps - 1, taps - 1), (taps - 1, taps - 1), (0, 0)])
    height, width, inputs = source.shape[0] - taps + 1, source.shape[1] - taps + 1, source.shape[2]
    row = weight.shape[1] // stride  # the outputs of one row of a cell: phase · O
    y, out = blank(height * stride, width * stride, row // stride)
    cells = out.reshape(height, stride, width, row)
    step = max(1, SPAN_FLOATS // (width * weight.shape[0]))

    def multiply(first: int, last: int) -> None:
        begin = source[first:]
        a, b, c = begin.strides
        windows, gathered = scratch((last - first) * width, weight.shape[0])
        shape = (last - first, width, taps, taps * inputs)
        np.copyto(gathered.reshape(shape), as_strided(begin, shape, (a, b, a, c)))
        products = memory(windows @ weight).reshape(last - first, width, stride, row)
        for phase in range(stride):
            finish(products[:, :, phase], cells[first:last, phase], None)

    share(height, even_step(height, step), multiply)
    return y

"""Spans of a convolution laid side by side equal the whole, and the generator built of them its plain form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rvc_batch.engine import blas
from rvc_batch.engine.blas import BlasSource, blas_threads, prepare_process, threads_are_ours
from rvc_batch.engine.types import F32

prepare_process()

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from rvc_batch.engine.mlx_nets import layers, streamed  # noqa: E402
from rvc_batch.engine.mlx_nets.generator import Generator  # noqa: E402
from rvc_batch.engine.mlx_nets.synthesizer import Synthesizer  # noqa: E402
from rvc_batch.engine.network_config import SynthesizerConfig  # noqa: E402

CONFIG = SynthesizerConfig(
    version="v2",
    feature_dim=8,
    has_f0=True,
    sample_rate=16_000,
    inter_channels=6,
    hidden_channels=6,
    filter_channels=8,
    n_heads=2,
    n_layers=1,
    kernel_size=3,
    resblock_kernels=(3, 7, 11),
    resblock_dilations=((1, 3, 5),) * 3,
    upsample_rates=(10, 4, 2, 2),
    upsample_initial_channels=32,
    upsample_kernels=(16, 8, 4, 4),
    n_speakers=1,
    gin_channels=4,
)


def normal(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def loaded(layer: layers.Conv1d | layers.ConvTranspose1d) -> layers.Conv1d | layers.ConvTranspose1d:
    shapes = layers.canonical_shapes(layer)
    layers.load_canonical(layer, {key: normal(i, *shape) for i, (key, shape) in enumerate(sorted(shapes.items()))})
    return layer


@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("kernel", [1, 3, 7, 11])
@pytest.mark.parametrize("channels", [1, 4, 40])  # outputs computed in groups, and one by one
def test_spans_of_a_convolution_laid_side_by_side_equal_the_whole(kernel: int, dilation: int, channels: int) -> None:
    conv = loaded(layers.Conv1d(3, channels, kernel, padding=kernel // 2 * dilation, dilation=dilation))
    length, reach = 400, kernel // 2 * dilation
    x = mx.array(normal(9, length, 3))
    whole = np.asarray(conv(x))
    assert whole.shape == (length, channels)
    for first, last in ((0, 1), (1, 150), (150, 151), (151, 390), (390, 400)):
        low = max(first - reach, 0)
        high = min(first - reach + conv.rows_in(last - first), length)
        y = conv.over(streamed.Span(x[low:high], low, length))
        assert y.first <= first
        assert y.last >= last
        np.testing.assert_allclose(y.rows, whole[y.first : y.last], atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 1), (8, 4, 2), (5, 3, 1), (1, 1, 0), (7, 1, 3)])
def test_any_rows_of_a_convolution_equal_those_of_the_whole(kernel: int, stride: int, padding: int) -> None:
    conv = loaded(layers.Conv1d(2, 5, kernel, stride=stride, padding=padding))
    x = mx.array(normal(9, 96, 2))
    whole = np.asarray(conv(x))
    for first, last in ((0, len(whole)), (0, 3), (7, 20), (len(whole) - 2, len(whole))):
        np.testing.assert_allclose(conv.between(x, first, last), whole[first:last], atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(16, 10), (4, 2), (11, 4), (3, 3), (2, 3)])
def test_any_rows_of_a_transposed_convolution_equal_those_of_the_whole(kernel: int, stride: int) -> None:
    conv = loaded(layers.ConvTranspose1d(6, 3, kernel, stride=stride, padding=max(0, kernel - stride + 1) // 2))
    x = mx.array(normal(9, 12, 6))
    whole = np.asarray(conv(x))
    for first, last in ((0, len(whole)), (0, 1), (5, 17), (len(whole) - 3, len(whole))):
        np.testing.assert_allclose(conv.between(x, first, last), whole[first:last], atol=1e-5)


@pytest.mark.parametrize("span_floats", [1 << 8, 1 << 10, 1 << 12, 1 << 19])
@pytest.mark.parametrize("has_f0", [True, False])
def test_generator_over_spans_equals_its_plain_form(
    span_floats: int, has_f0: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(dataclasses.replace(CONFIG, has_f0=has_f0))
    shapes = {key: value.shape for key, value in tree_flatten(generator.parameters())}
    rng = np.random.default_rng(3)
    tensors = {
        key: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for key, shape in shapes.items()
    }
    tensors["conv_post.weight"] *= 0.1
    layers.load_canonical(generator, tensors)
    z, speaker = mx.array(normal(1, 23, 6)), mx.array(normal(2, 1, 4))
    source = mx.array(normal(4, 23 * 160))

    monkeypatch.setattr(layers, "_on_cpu", lambda: False)
    plain = np.asarray(generator(z, source, speaker))
    assert 0.1 < np.abs(plain).max() < 1
    monkeypatch.undo()
    monkeypatch.setattr(layers, "SPAN_FLOATS", span_floats)
    np.testing.assert_allclose(generator(z, source, speaker), plain, atol=2e-6)


def test_fused_flow_and_generator_of_a_gpu_equal_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Synthesizer(CONFIG)
    shapes = layers.canonical_shapes(plain)
    tensors = {key: 0.1 * normal(i, *shape) for i, (key, shape) in enumerate(sorted(shapes.items()))}
    layers.load_canonical(plain, tensors)
    monkeypatch.setattr(layers, "_on_cpu", lambda: False)
    on_gpu = Synthesizer(CONFIG)
    layers.load_canonical(on_gpu, tensors)
    for frames, valid in ((23, 23), (23, 20), (31, 31)):  # a second trace, and one used again
        latent, source = mx.array(normal(1, frames, 6)), mx.array(normal(2, frames * 160))
        z = on_gpu.reverse_flow(latent, 0, valid)
        audio = on_gpu.generate(z, source, 0)
        mx.eval(z, audio)
        with monkeypatch.context() as cpu:
            cpu.setattr(layers, "_on_cpu", lambda: True)
            np.testing.assert_allclose(z, plain.reverse_flow(latent, 0, valid), atol=1e-5)
            np.testing.assert_allclose(audio, plain.generate(z, source, 0), atol=2e-6)


def test_rows_outside_of_a_signal_are_zero() -> None:
    x = mx.array(normal(1, 4, 2))
    rows = np.asarray(streamed.rows_between(x, -2, 7))
    np.testing.assert_array_equal(rows[2:6], x)
    assert rows.shape == (9, 2)
    assert not rows[:2].any()
    assert not rows[6:].any()


def test_threads_of_the_blas_are_set_for_a_block_only() -> None:
    library = blas._pthread_openblas()
    if blas.prepare_process().source is BlasSource.SYSTEM:
        assert threads_are_ours() == (library is not None)
    else:
        assert library is None
        assert threads_are_ours() == (blas.prepare_process().source is BlasSource.FAISS_WHEEL)
    with blas_threads(1):
        assert library is None or library.openblas_get_num_threads() == 1
    if library is not None:
        before = library.openblas_get_num_threads()
        with pytest.raises(RuntimeError), blas_threads(1):
            raise RuntimeError
        assert library.openblas_get_num_threads() == before

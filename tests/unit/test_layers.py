"""Every formulation of the MLX layers equals torch's own layer, on the CPU path and on the GPU path."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from rvc_batch.engine.blas import prepare_process

prepare_process()

import mlx.core as mx  # noqa: E402
import torch  # noqa: E402

from rvc_batch.engine.mlx_nets import cpu_products, streamed  # noqa: E402
from rvc_batch.engine.mlx_nets import layers as mlx_layers  # noqa: E402
from rvc_batch.engine.torch_nets import layers as torch_layers  # noqa: E402
from rvc_batch.engine.types import F32  # noqa: E402

ATOL = 2e-5  # float32 sums of a few hundred products of order one


@pytest.fixture(params=["cpu", "gpu"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test once with each device's formulation; MLX's own operations are slow on a CPU but correct there."""
    monkeypatch.setattr(mlx_layers, "_on_cpu", lambda: request.param == "cpu")
    return request.param


def normal(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def twins(name: str, *sizes: int, **options: object) -> tuple[object, torch.nn.Module]:
    """Build one layer in both frameworks with the same canonical tensors."""
    ours, theirs = getattr(mlx_layers, name)(*sizes, **options), getattr(torch_layers, name)(*sizes, **options)
    shapes = mlx_layers.canonical_shapes(ours)
    tensors = {key: normal(i, *shape) for i, (key, shape) in enumerate(sorted(shapes.items()))}
    if "running_var" in tensors:
        tensors["running_var"] = np.abs(tensors["running_var"]) + 0.5
    mlx_layers.load_canonical(ours, tensors)
    torch_layers.load_canonical(theirs, tensors)
    return ours, theirs.eval()


def channels_second(x: F32) -> torch.Tensor:
    """[T, …, C] → [1, C, T, …]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 0)[None]))


def channels_last(x: torch.Tensor) -> F32:
    """[1, C, T, …] → [T, …, C]."""
    return np.moveaxis(x[0].detach().numpy(), 0, -1)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "padding"),
    [
        (k, s, d, g, p)
        for k, s, d, g in itertools.product((1, 2, 3, 4, 7, 11), (1, 2, 5), (1, 3), (1, 2))
        for p in {0, (k - 1) // 2 * d, k // 2}
        if s == 1 or d == 1
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv1d_equals_torch(
    path: str, kernel: int, stride: int, dilation: int, groups: int, padding: int, bias: bool
) -> None:
    ours, theirs = twins(
        "Conv1d", 4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    x = normal(9, 53, 4)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


@pytest.mark.parametrize("span_floats", [1, 100, 1 << 10])  # one row at a time, some rows, all rows
@pytest.mark.parametrize(("stride", "groups"), [(1, 2), (3, 1), (2, 2)])
def test_conv1d_in_spans_of_rows_equals_torch(
    span_floats: int, stride: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "WINDOW_FLOATS", span_floats)
    ours, theirs = twins("Conv1d", 4, 6, 5, stride=stride, padding=2, groups=groups)
    x = normal(9, 53, 4)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


def test_positional_convolution_of_hubert_has_an_even_kernel_and_many_groups(path: str) -> None:
    ours, theirs = twins("Conv1d", 48, 48, 128, padding=64, groups=16)
    x = normal(9, 37, 48)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=1e-4)


@pytest.mark.parametrize("block_floats", [1, 100, 1 << 17])  # one row at a time, some rows, all rows
@pytest.mark.parametrize("frames", [1, 9, 200])
def test_depthwise_convolution_equals_torch(
    path: str, block_floats: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_products, "BLOCK_FLOATS", block_floats)
    ours, theirs = twins("Conv1d", 24, 24, 31, padding=15, groups=24)
    x = normal(9, frames, 24)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


@pytest.mark.parametrize(
    ("inputs", "kernel", "stride", "padding"),
    [(1, 512, 4, (254, 254)), (3, 64, 1, (31, 32)), (3, 5, 2, (2, 1)), (1, 4, 1, (0, 0)), (160, 64, 2, (31, 32))],
)
def test_convolution_of_frames_equals_torch(
    path: str, inputs: int, kernel: int, stride: int, padding: tuple[int, int]
) -> None:
    ours, theirs = twins("FrameConv1d", inputs, 6, kernel, stride, padding)
    x = normal(9, 5, 300, inputs)
    found = np.asarray(ours(mx.array(x)))
    expected = theirs(torch.from_numpy(x.swapaxes(1, 2).copy())).detach().numpy().swapaxes(1, 2)
    np.testing.assert_allclose(found, expected, atol=3e-3)  # sums of 10 240 products
    pooled = torch_layers.larger_of_pairs(torch.from_numpy(expected.swapaxes(1, 2).copy()[..., :74]))
    np.testing.assert_array_equal(mlx_layers.larger_of_pairs(mx.array(expected[:, :74])), pooled.numpy().swapaxes(1, 2))


@pytest.mark.parametrize("name", ["GLU", "SiLU", "LeakyReLU"])
def test_activations_equal_torch(path: str, name: str) -> None:
    x = 20 * normal(9, 300, 8)
    theirs = torch.nn.GLU(-1) if name == "GLU" else getattr(torch_layers, name)()
    found = getattr(mlx_layers, name)()(mx.array(x))
    np.testing.assert_allclose(found, theirs(torch.from_numpy(x)), atol=ATOL, rtol=1e-6)


# (kernel, stride): all published pairs, odd differences, kernels below the stride and above twice the stride
UPSAMPLERS = [(16, 10), (24, 12), (20, 8), (20, 10), (12, 6), (4, 2), (16, 4), (6, 3), (5, 2), (3, 2), (2, 3), (11, 4)]


@pytest.mark.parametrize(("kernel", "stride"), UPSAMPLERS)
@pytest.mark.parametrize("frames", [1, 2, 17])
def test_conv_transpose1d_equals_torch(kernel: int, stride: int, frames: int) -> None:
    for padding, output_padding, bias in itertools.product({0, max(0, kernel - stride) // 2}, (0, 1), (True, False)):
        ours, theirs = twins(
            "ConvTranspose1d",
            *(6, 4, kernel),
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            bias=bias,
        )
        x = normal(9, frames, 6)
        np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0), (3, 0), (5, 2)])
@pytest.mark.parametrize("span_floats", [1, 1 << 10, 1 << 21])
@pytest.mark.parametrize(("height", "width"), [(14, 8), (5, 7), (6, 5)])  # odd: half a pair, part of a group
def test_conv2d_equals_torch(
    path: str, kernel: int, padding: int, span_floats: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_products, "SPAN_FLOATS", span_floats)  # one row, some rows, all rows at a time
    monkeypatch.setattr(cpu_products, "LEAST_ROWS", 1)
    ours, theirs = twins("Conv2d", 3, 5, kernel, padding=padding)
    x = normal(9, height, width, 3)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


@pytest.mark.parametrize(("kernel", "stride", "padding", "output_padding"), [(3, 2, 1, 1), (3, 2, 0, 0), (4, 2, 1, 0)])
def test_conv_transpose2d_equals_torch(kernel: int, stride: int, padding: int, output_padding: int) -> None:
    ours, theirs = twins(
        "ConvTranspose2d", 6, 4, kernel, stride=stride, padding=padding, output_padding=output_padding, bias=False
    )
    x = normal(9, 5, 7, 6)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


def test_output_padding_is_computed_from_the_data_not_appended_as_zeros() -> None:
    ours, _ = twins("ConvTranspose2d", 3, 2, 3, stride=2, padding=1, output_padding=1, bias=False)
    y = np.asarray(ours(mx.array(normal(9, 4, 4, 3))))
    assert y.shape == (8, 8, 2)
    assert np.abs(y[-1]).max() > 0.1
    assert np.abs(y[:, -1]).max() > 0.1


@pytest.mark.parametrize("outputs", [5, 300])  # narrow: paired rows; wide: shared out by outputs
@pytest.mark.parametrize("height", [6, 7])
@pytest.mark.parametrize("has_shortcut", [False, True])
def test_convolution_with_norm_and_relu_equals_torch(path: str, outputs: int, height: int, has_shortcut: bool) -> None:
    conv, torch_conv = twins("Conv2d", 4, outputs, 3, padding=1, bias=False)
    norm, torch_norm = twins("BatchNorm2d", outputs)
    x, shortcut = normal(9, height, 4, 4), normal(8, height, 4, outputs) if has_shortcut else None
    steps, torch_steps = [conv, norm, mlx_layers.ReLU()], [torch_conv, torch_norm, torch.nn.ReLU()]
    ours = mlx_layers.conv_norm_relu(steps, mx.array(x), None if shortcut is None else mx.array(shortcut))
    theirs = torch_layers.conv_norm_relu(
        torch_steps, channels_second(x), None if shortcut is None else channels_second(shortcut)
    )
    np.testing.assert_allclose(ours, channels_last(theirs), atol=1e-4)


def test_transposed_convolution_with_norm_and_relu_equals_torch(path: str) -> None:
    conv, torch_conv = twins("ConvTranspose2d", 6, 4, 3, stride=2, padding=1, output_padding=1, bias=False)
    norm, torch_norm = twins("BatchNorm2d", 4)
    x = normal(9, 5, 7, 6)
    steps, torch_steps = [conv, norm, mlx_layers.ReLU()], [torch_conv, torch_norm, torch.nn.ReLU()]
    ours = mlx_layers.conv_norm_relu(steps, mx.array(x))
    theirs = torch_layers.conv_norm_relu(torch_steps, channels_second(x))
    np.testing.assert_allclose(ours, channels_last(theirs), atol=ATOL)


@pytest.mark.parametrize(("frames", "outputs"), [(3, 5), (40, 300)])  # one small product, shared out
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(path: str, frames: int, outputs: int, bias: bool) -> None:
    ours, theirs = twins("Linear", 7, outputs, bias=bias)
    x = normal(9, frames, 7)
    np.testing.assert_allclose(ours(mx.array(x)), theirs(torch.from_numpy(x)), atol=ATOL)


def test_layer_norm_equals_torch(path: str) -> None:
    ours, theirs = twins("LayerNorm", 48)
    x = normal(9, 21, 48) * 3 + 5
    np.testing.assert_allclose(ours(mx.array(x)), theirs(torch.from_numpy(x)), atol=ATOL)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(("count", "step"), [(1, 1), (7, 1), (7, 3), (100, 7), (5, 9)])
def test_work_is_shared_out_once_and_completely(
    n_threads: int, count: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_products, "threads", lambda: n_threads)
    done: list[tuple[int, int]] = []
    cpu_products.share(count, step, lambda *span: done.append(span))
    assert sorted(i for first, last in done for i in range(first, last)) == list(range(count))
    assert all(last - first <= step for first, last in done)


def test_a_failure_in_any_thread_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "threads", lambda: 2)

    def fail(first: int, last: int) -> None:
        if first == 3:
            raise MemoryError("span 3")

    with pytest.raises(MemoryError, match="span 3"):
        cpu_products.share(8, 1, fail)


def test_batch_norm_equals_torch() -> None:
    ours, theirs = twins("BatchNorm2d", 5)
    x = normal(9, 6, 8, 5)
    np.testing.assert_allclose(ours(mx.array(x)), channels_last(theirs(channels_second(x))), atol=ATOL)


@pytest.mark.parametrize("frames", [7, 512, 200_001])  # the last: a minute of the first convolution
def test_group_norm_is_exact_over_any_length(frames: int) -> None:
    ours, theirs = twins("GroupNorm", 4, 4)
    x = normal(9, frames, 4) * 3 + 20  # far from zero mean
    expected = channels_last(theirs.double()(channels_second(x).double()))
    np.testing.assert_allclose(ours(mx.array(x)), expected, atol=3e-5)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("frames", [1, 40])
def test_gru_equals_torch(n_layers: int, frames: int) -> None:
    ours = mlx_layers.GRU(12, 8, n_layers)
    theirs = torch_layers.GRU(12, 8, n_layers, batch_first=True, bidirectional=True)
    assert mlx_layers.canonical_shapes(ours) == torch_layers.canonical_shapes(theirs)
    tensors = {k: normal(i, *s) for i, (k, s) in enumerate(mlx_layers.canonical_shapes(ours).items())}
    mlx_layers.load_canonical(ours, tensors)
    torch_layers.load_canonical(theirs, tensors)
    x = normal(9, frames, 12)
    np.testing.assert_allclose(ours(mx.array(x)), theirs(torch.from_numpy(x[None]))[0][0].numpy(), atol=ATOL)


def test_gelu_is_the_exact_one(path: str) -> None:
    x = np.linspace(-6, 6, 2001, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(mlx_layers.gelu(mx.array(x)), exact, atol=2e-6)
    np.testing.assert_allclose(torch_layers.gelu(torch.from_numpy(x)), exact, atol=2e-6)


@pytest.mark.parametrize("frames", [3, 400])  # one small product, shared out
@pytest.mark.parametrize(
    ("name", "sizes", "options"),
    [
        ("Linear", (7, 300), {}),
        ("Linear", (7, 300), {"bias": False}),
        ("Conv1d", (7, 6, 3), {"stride": 2, "bias": False}),
        ("Conv1d", (7, 6, 3), {"stride": 2}),
        ("GroupNorm", (7, 7), {}),
    ],
)
def test_gelu_of_a_layer_is_gelu_after_it(
    path: str, name: str, sizes: tuple[int, ...], options: dict[str, object], frames: int
) -> None:
    layer, _ = twins(name, *sizes, **options)
    x = mx.array(normal(9, frames, 7))
    np.testing.assert_allclose(mlx_layers.gelu_of(layer, x), mlx_layers.gelu(layer(x)), atol=2e-6)


@pytest.mark.parametrize("frames", [1, 700])
def test_normalised_sum_equals_torch(path: str, frames: int) -> None:
    ours, theirs = twins("LayerNorm", 48)
    x, y = normal(8, frames, 48) * 3 + 5, normal(9, frames, 48)
    expected = theirs(torch.from_numpy(x + y))
    np.testing.assert_allclose(mlx_layers.normalised_sum(ours, mx.array(x), mx.array(y)), expected, atol=ATOL)


def test_gated_activation_equals_torch(path: str) -> None:
    signal, gate = normal(1, 50, 6) * 5, normal(2, 50, 6) * 20
    theirs = torch_layers.gated(torch.from_numpy(signal), torch.from_numpy(gate))
    np.testing.assert_allclose(mlx_layers.gated(mx.array(signal), mx.array(gate)), theirs, atol=1e-6)


def test_leaky_relu_and_mean_pool_equal_torch() -> None:
    x = normal(9, 6, 8, 3)
    for name, arguments in (("leaky_relu", (0.1,)), ("mean_pool", ())):
        ours = getattr(mlx_layers, name)(mx.array(x), *arguments)
        theirs = getattr(torch_layers, name)(channels_second(x), *arguments)
        np.testing.assert_allclose(ours, channels_last(theirs), atol=ATOL)


@pytest.mark.parametrize("span_floats", [1, 1 << 21])  # spans of 16 queries, all queries
def test_attention_equals_torch_and_survives_large_scores(
    path: str, span_floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_products, "SPAN_FLOATS", span_floats)
    q, k, v = (normal(i, 3, 41, 8) * scale for i, scale in enumerate((60, 10, 1)))  # logits of several hundred
    ours = mlx_layers.attention(*(mx.array(a) for a in (q, k, v)))
    theirs = torch_layers.attention(*(torch.from_numpy(a[None]).double() for a in (q, k, v)))[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize(("frames", "valid"), [(1, 1), (6, 6), (11, 11), (45, 45), (45, 30)])
@pytest.mark.parametrize("score_floats", [1, 1 << 21])
def test_relative_attention_equals_its_definition(
    path: str, frames: int, valid: int, score_floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlx_layers, "WINDOW_FLOATS", score_floats)
    monkeypatch.setattr(cpu_products, "SPAN_FLOATS", score_floats)
    heads, dim, reach = 2, 8, 10
    q, k, v = (normal(i, heads, frames, dim) for i in range(3))
    near_keys, near_values = normal(4, 2 * reach + 1, dim), normal(5, 2 * reach + 1, dim)

    expected = np.zeros((heads, frames, dim))
    for h, i in np.ndindex(heads, frames):
        scores = np.full(frames, -1e4)
        for j in range(valid):
            key = k[h, j] + (near_keys[j - i + reach] if abs(j - i) <= reach else 0)
            scores[j] = q[h, i].astype(np.float64) @ key / np.sqrt(dim)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        for j in range(frames):
            expected[h, i] += weights[j] * (v[h, j] + (near_values[j - i + reach] if abs(j - i) <= reach else 0))

    arrays = (q, k, v, near_keys, near_values)
    ours = mlx_layers.relative_attention(*(mx.array(a) for a in arrays), valid)
    theirs = torch_layers.relative_attention(*(torch.from_numpy(a) for a in arrays), valid)
    np.testing.assert_allclose(ours, expected, atol=ATOL)
    np.testing.assert_allclose(theirs, expected, atol=ATOL)


def test_canonical_shapes_are_channels_last_in_both() -> None:
    for name, sizes, expected in (
        ("Conv1d", (4, 6, 3), (6, 3, 4)),
        ("ConvTranspose1d", (4, 6, 3), (6, 3, 4)),
        ("Conv2d", (4, 6, 3), (6, 3, 3, 4)),
        ("ConvTranspose2d", (4, 6, 3), (6, 3, 3, 4)),
        ("Linear", (4, 6), (6, 4)),
        ("Embedding", (4, 6), (4, 6)),
    ):
        for package in (mlx_layers, torch_layers):
            assert package.canonical_shapes(getattr(package, name)(*sizes))["weight"] == expected, (package, name)

"""Half precision stays half from the input to the output, quantised weights stay near, and neither is silent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from rvc_batch.engine.blas import prepare_process
from rvc_batch.engine.network_config import HubertConfig, SynthesizerConfig
from rvc_batch.engine.precision import DTYPES, FULL, QUANTIZE_BITS, Precision
from rvc_batch.engine.types import F32
from rvc_batch.errors import SettingsInvalid

prepare_process()

import mlx.core as mx  # noqa: E402
from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from rvc_batch.engine.mlx_nets import layers  # noqa: E402
from rvc_batch.engine.mlx_nets.hubert import Hubert  # noqa: E402
from rvc_batch.engine.mlx_nets.synthesizer import Synthesizer  # noqa: E402

HUBERT = HubertConfig(
    conv_dims=(64,) * 7,
    conv_kernels=(10, 3, 3, 3, 3, 2, 2),
    conv_strides=(5, 2, 2, 2, 2, 2, 2),
    hidden=64,
    ffn=128,
    n_layers=2,
    n_heads=2,
    pos_kernel=16,
    pos_groups=4,
    projection=64,
)
VOICE = SynthesizerConfig(
    version="v2",
    feature_dim=64,
    has_f0=True,
    sample_rate=16_000,
    inter_channels=8,
    hidden_channels=8,
    filter_channels=16,
    n_heads=2,
    n_layers=2,
    kernel_size=3,
    resblock_kernels=(3, 7),
    resblock_dilations=((1, 3),) * 2,
    upsample_rates=(10, 4, 2, 2),
    upsample_initial_channels=32,
    upsample_kernels=(16, 8, 4, 4),
    n_speakers=2,
    gin_channels=4,
)
FRAMES = 24
HALVES = ("float16", "bfloat16")
# of the root mean square of the float32 result, after some ten layers: rounding is 2^-11 and 2^-8
TOLERANCE = {"float32": 1e-6, "float16": 0.02, "bfloat16": 0.12}


@pytest.fixture(params=["cpu", "gpu"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test once with each device's formulation."""
    monkeypatch.setattr(layers, "_on_cpu", lambda: request.param == "cpu")
    mx.disable_compile()  # fusing on a CPU needs a compiler
    yield request.param
    mx.enable_compile()


def normal(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tensors_of(network: nn.Module) -> dict[str, F32]:
    """Return tensors that keep signals of order one: weights by the root of their fan-in, gains near one."""
    tensors = {}
    for i, (key, shape) in enumerate(sorted(layers.canonical_shapes(network).items())):
        tensors[key] = normal(i, *shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
        if key.endswith(("norm.weight", "gamma")):
            tensors[key] = 1 + np.float32(0.1) * normal(i, *shape)
    return tensors


def loaded(build: Callable[[], nn.Module], precision: Precision) -> nn.Module:
    network = build()
    layers.load_canonical(network, tensors_of(network), precision)
    return network


def stages(precision: Precision) -> dict[str, mx.array]:
    """Return what every stage of both networks gives for inputs of this precision."""
    dtype = getattr(mx, precision.dtype)
    hubert = loaded(lambda: Hubert(HUBERT), precision)
    voice = loaded(lambda: Synthesizer(VOICE), precision)
    content = mx.array(normal(1, FRAMES, VOICE.feature_dim)).astype(dtype)
    latent = mx.array(normal(2, FRAMES, VOICE.inter_channels)).astype(dtype)
    source = mx.array(0.1 * normal(3, FRAMES * VOICE.hop_samples)).astype(dtype)
    coarse = mx.arange(1, FRAMES + 1)
    mean, logs = voice.prior(content, coarse, FRAMES - 4)
    wave = mx.array(0.1 * normal(4, 6400)).astype(dtype)
    return {
        **hubert.stages(wave),
        "mean": mean,
        "logs": logs,
        "z": voice.reverse_flow(latent, 1, FRAMES - 4),
        "audio": voice.generate(latent, source, 1),
    }


@pytest.mark.parametrize("dtype", HALVES)
def test_every_stage_is_in_half_precision_and_audio_in_float32(path: str, dtype: str) -> None:
    half = getattr(mx, dtype)
    found = {name: x.dtype for name, x in stages(Precision(dtype)).items()}
    assert found.pop("audio") == mx.float32
    assert found == dict.fromkeys(found, half)


@pytest.mark.parametrize("dtype", HALVES)
def test_no_array_between_the_layers_is_cast_up(path: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[mx.Dtype]] = {}
    half = getattr(mx, dtype)
    watched = [(kind, "__call__") for kind in (layers.Conv1d, layers.Linear, layers.LayerNorm, layers.GroupNorm)]
    watched += [(layers.Conv1d, "between"), (layers.Conv1d, "over"), (layers.ConvTranspose1d, "between")]

    def spy(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: nn.Module, x: Any, *place: int) -> Any:
            y = plain(layer, x, *place)
            seen.setdefault(name, set()).update(array.dtype for array in (getattr(v, "rows", v) for v in (x, y)))
            return y

        return call

    for kind, method in watched:
        monkeypatch.setattr(kind, method, spy(f"{kind.__name__}.{method}", getattr(kind, method)))
    stages(Precision(dtype))
    assert seen == {f"{kind.__name__}.{method}": {half} for kind, method in watched}


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_stage_stays_near_float32(path: str, dtype: str) -> None:
    exact, rounded = stages(FULL), stages(Precision(dtype))
    for name, x in exact.items():
        want, got = np.asarray(x), np.asarray(rounded[name].astype(mx.float32))
        error = np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2))
        assert error < TOLERANCE[dtype], f"{name}: {error}"


@pytest.mark.parametrize("dtype", HALVES)
def test_parameters_are_cast_once_at_load(dtype: str) -> None:
    for network in (
        loaded(lambda: Hubert(HUBERT), Precision(dtype)),
        loaded(lambda: Synthesizer(VOICE), Precision(dtype)),
    ):
        assert {x.dtype for _, x in tree_flatten(network.parameters())} == {getattr(mx, dtype)}


def test_group_norm_takes_its_statistics_in_float32(path: str) -> None:
    norm = layers.GroupNorm(2, 2)
    norm.set_dtype(mx.float16)
    x = 300 * normal(1, 4000, 2)  # squares of 90 000 do not fit in float16
    y = np.asarray(norm(mx.array(x).astype(mx.float16)))
    np.testing.assert_allclose(y.astype(np.float32), (x - x.mean(0)) / x.std(0), atol=5e-3)


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (4, 0.3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_quantised_linear_layers_are_small_and_near(dtype: str, bits: int, tolerance: float) -> None:
    exact, quantised = (loaded(lambda: Hubert(HUBERT), p) for p in (FULL, Precision(dtype, bits)))
    kinds = [type(m) for _, m in quantised.named_modules()]
    assert nn.QuantizedLinear in kinds
    assert layers.Linear not in kinds
    attend = quantised.encoder.layers[0].attention.q_proj
    assert attend.weight.nbytes * 32 // bits == exact.encoder.layers[0].attention.q_proj.weight.nbytes
    wave = mx.array(0.1 * normal(4, 6400))
    want = np.asarray(exact(wave, layer=2, project=True))
    got = quantised(wave.astype(getattr(mx, dtype)), layer=2, project=True)
    assert got.dtype == getattr(mx, dtype)
    error = np.sqrt(np.mean((np.asarray(got.astype(mx.float32)) - want) ** 2) / np.mean(want**2))
    assert 1e-4 < error < tolerance + TOLERANCE[dtype]


def test_linear_layers_that_do_not_fill_a_group_are_left_alone() -> None:
    voice = loaded(lambda: Synthesizer(VOICE), Precision(quantize_bits=8))
    assert type(voice.enc_p.emb_phone) is nn.QuantizedLinear
    assert type(voice.dec.m_source.l_linear) is layers.Linear


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (("float64", 0), "precision is 'float64', expected one of float32, float16, bfloat16"),
        (("float32", 6), "quantize_bits is 6, expected one of 0, 8, 4"),
        (("float32", True), "quantize_bits is True, expected one of 0, 8, 4"),
    ],
)
def test_unknown_precision_is_refused(values: tuple[str, int], sentence: str) -> None:
    with pytest.raises(SettingsInvalid, match=re.escape(sentence)):
        Precision(*values)


def test_every_precision_has_a_name_of_its_own() -> None:
    every = [Precision(dtype, bits) for dtype in DTYPES for bits in QUANTIZE_BITS]
    assert len({str(p) for p in every}) == len(every)

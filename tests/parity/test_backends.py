"""The contract of `Backend`, run on both backends, and their agreement where no golden output reaches."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rvc_batch.engine.backend import Backend, open_backend
from rvc_batch.engine.checkpoints import NetworkKind, read_header, read_tensors, write_checkpoint
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.dialect import RVC_2023, MelPadding
from rvc_batch.engine.network_config import SynthesizerConfig
from rvc_batch.engine.precision import FULL, Precision
from rvc_batch.engine.requests import silent_inputs
from rvc_batch.engine.resident import RESIDENT_VOICES
from rvc_batch.engine.types import F32, SynthesisInputs
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelKeys, ModelMissing, ModelNotRvc, SettingsInvalid
from tests.conftest import OpenBackend, OpenVoice
from tests.golden import golden_io


@pytest.fixture
def backend(open_networks: OpenBackend, framework: str) -> Backend:
    return open_networks(framework, "tiny")


@pytest.fixture
def voice(open_voice: OpenVoice) -> Voice:
    return open_voice("tiny", "v2_40k_f0")


def inputs(config: SynthesizerConfig, frames: int, *, seed: int = 0) -> SynthesisInputs:
    """Return random inputs for a voice."""
    rng = np.random.default_rng(seed)
    voiced = frames if config.has_f0 else 0
    return SynthesisInputs(
        content=rng.standard_normal((frames, config.feature_dim)).astype(np.float32),
        coarse=rng.integers(1, 256, voiced),
        source=(rng.standard_normal(voiced * config.hop_samples) * 0.1).astype(np.float32),
        speaker=5,
        valid=frames,
    )


def test_decode_is_flow_then_generator(backend: Backend, voice: Voice) -> None:
    backend.load_voice(voice)
    x = inputs(voice.config, 30)
    latent = golden_io.normal(1, (30, voice.config.inter_channels))
    np.testing.assert_allclose(
        backend.decode(latent, x), backend.generate(backend.reverse_flow(latent, x), x), atol=1e-6
    )


def test_results_belong_to_the_caller(backend: Backend, voice: Voice) -> None:
    backend.load_voice(voice)
    x = inputs(voice.config, 20)
    wave = golden_io.normal(1, (8000,))
    wave.setflags(write=False)
    for ask in (
        lambda: backend.content(wave, layer=12, project=False),
        lambda: backend.pitch_salience(wave, padding=MelPadding.ZEROS),
        lambda: backend.encode_prior(x)[0],
        lambda: backend.log_mel(wave),
    ):
        first = ask()
        assert first.dtype == np.float32
        assert first.flags.c_contiguous
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(ask(), kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker": 109}, "speaker is 109"),
        ({"content": np.zeros((20, 256), np.float32)}, "256 wide, the voice expects 768"),
        ({"coarse": np.zeros(0, np.int64)}, "0 pitch codes"),
        ({"source": np.zeros(20, np.float32)}, "20 source samples"),
    ],
)
def test_inputs_made_for_another_voice_are_refused(
    backend: Backend, voice: Voice, change: dict[str, object], message: str
) -> None:
    backend.load_voice(voice)
    x = dataclasses.replace(inputs(voice.config, 20), **change)
    with pytest.raises((SettingsInvalid, ValueError), match=message):
        backend.encode_prior(x)


@pytest.mark.parametrize("name", ["v2_40k_f0_feat48", "v1_48k_nof0"])
def test_warm_up_makes_the_voice_current_and_leaves_nothing_on_disk(
    backend: Backend, open_voice: OpenVoice, tmp_path: Path, name: str
) -> None:
    voice = open_voice("tiny", name)
    Converter(backend, scratch=tmp_path / "scratch").warm_up(voice, RVC_2023)
    assert not list((tmp_path / "scratch").iterdir())
    x = silent_inputs(voice.config, 12)
    assert backend.encode_prior(x)[0].shape == (12, 32)


def test_memory_is_counted_and_given_back(framework: str, backend: Backend) -> None:
    backend.peak_memory()
    backend.content(golden_io.normal(1, (32_000,)), layer=12, project=False)
    assert (backend.peak_memory() > 100_000) == (framework == "mlx")
    backend.release()
    assert backend.content(golden_io.normal(1, (32_000,)), layer=12, project=False).shape == (99, 48)


def test_voices_beyond_the_resident_number_are_loaded_again(
    framework: str, open_networks: OpenBackend, open_voice: OpenVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_networks(framework, "tiny")
    module = importlib.import_module(f"rvc_batch.engine.{framework}_nets.backend")
    loads: list[Path] = []
    read = module.read_tensors
    monkeypatch.setattr(module, "read_tensors", lambda path: loads.append(path) or read(path))
    voices = [open_voice("tiny", f"v{v}_{rate}k_f0") for v in (1, 2) for rate in (32, 40, 48)]
    for voice in (*voices[: RESIDENT_VOICES + 1], voices[RESIDENT_VOICES], voices[0]):
        backend.load_voice(voice)
        assert (
            backend.decode(np.zeros((5, 32), np.float32), inputs(voice.config, 5)).size == 5 * voice.config.hop_samples
        )
    assert loads[-1] == voices[0].checkpoint
    assert loads.count(voices[RESIDENT_VOICES].checkpoint) <= 1


def spoilt(source: Path, out: Path, change: Callable[[dict[str, F32]], None], kind: NetworkKind) -> Path:
    tensors = read_tensors(source)
    change(tensors)
    write_checkpoint(out, read_header(source, kind), tensors)
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("dec.conv_pre.bias"), r"1 missing \(dec.conv_pre.bias\)"),
        (lambda t: t.update({"enc_q.pre.weight": np.zeros(3, np.float32)}), r"1 unexpected \(enc_q.pre.weight\)"),
        (lambda t: t.update({"dec.ups.0.weight": t["dec.ups.0.weight"][:, :-1]}), "1 misshaped .*dec.ups.0.weight"),
    ],
)
def test_voice_with_other_tensors_is_refused_and_the_current_one_stays(
    backend: Backend, voice: Voice, tmp_path: Path, change: Callable[[dict[str, F32]], None], message: str
) -> None:
    backend.load_voice(voice)
    path = spoilt(voice.checkpoint, tmp_path / "spoilt.safetensors", change, NetworkKind.SYNTHESIZER)
    with pytest.raises(ModelKeys, match=message):
        backend.load_voice(Voice.open("spoilt", path, None))
    assert backend.encode_prior(inputs(voice.config, 5))[0].shape == (5, 32)


def test_networks_with_other_tensors_are_refused(
    framework: str, networks: Callable[[str], Path], tmp_path: Path
) -> None:
    hubert, rmvpe = (networks("tiny") / f"{name}.safetensors" for name in ("hubert", "rmvpe"))
    broken = spoilt(rmvpe, tmp_path / "r.safetensors", lambda t: t.pop("cnn.bias"), NetworkKind.RMVPE)
    with pytest.raises(ModelKeys, match=r"cnn\.bias"):
        open_backend(framework, hubert=hubert, rmvpe=broken)
    with pytest.raises(ModelNotRvc, match="holds a rmvpe network"):
        open_backend(framework, hubert=rmvpe, rmvpe=rmvpe)
    with pytest.raises(ModelMissing):
        open_backend(framework, hubert=hubert, rmvpe=tmp_path / "nothing.safetensors")


def test_no_voice_is_an_error_that_says_what_to_do(framework: str, networks: Callable[[str], Path]) -> None:
    folder = networks("tiny")
    fresh = open_backend(framework, hubert=folder / "hubert.safetensors", rmvpe=folder / "rmvpe.safetensors")
    with pytest.raises(RuntimeError, match="load_voice"):
        fresh.encode_prior(
            SynthesisInputs(np.zeros((1, 768), np.float32), np.ones(1, np.int64), np.zeros(400, np.float32), 0, 1)
        )


def test_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="'jax'"):
        open_backend("jax", hubert=tmp_path, rmvpe=tmp_path)


@pytest.mark.parametrize("precision", [Precision("float16"), Precision("bfloat16"), Precision(quantize_bits=8)])
def test_the_torch_backend_computes_in_float32_only(tmp_path: Path, precision: Precision) -> None:
    with pytest.raises(SettingsInvalid, match=f"does not compute in {precision}; use backend mlx"):
        open_backend("torch", hubert=tmp_path, rmvpe=tmp_path, precision=precision)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_changes_every_network_a_little_and_pitch_not_at_all(
    open_networks: OpenBackend, networks: Callable[[str], Path], voice: Voice, dtype: str
) -> None:
    hubert, rmvpe = (networks("tiny") / f"{name}.safetensors" for name in ("hubert", "rmvpe"))
    full = open_networks("mlx", "tiny")
    half = open_backend("mlx", hubert=hubert, rmvpe=rmvpe, precision=Precision(dtype))
    assert (full.precision, half.precision) == (FULL, Precision(dtype))
    wave = golden_io.normal(3, (16_000,)) * np.float32(0.1)
    x = inputs(voice.config, 30)
    latent = golden_io.normal(1, (30, voice.config.inter_channels))
    for backend in (full, half):
        backend.load_voice(voice)
    for ask in (
        lambda b: b.content(wave, layer=12, project=False),
        lambda b: b.encode_prior(x)[0],
        lambda b: b.reverse_flow(latent, x),
        lambda b: b.excitation(x),
        lambda b: b.decode(latent, x),
    ):
        exact, rounded = ask(full), ask(half)
        assert rounded.dtype == np.float32
        error = np.sqrt(np.mean((rounded - exact) ** 2) / np.mean(exact**2))
        assert 1e-5 < error < 0.2
    np.testing.assert_array_equal(
        half.pitch_salience(wave, padding=MelPadding.ZEROS), full.pitch_salience(wave, padding=MelPadding.ZEROS)
    )


def random_voice(config: SynthesizerConfig, path: Path) -> Voice:
    """Write a voice of random tensors, small enough for audio of order one."""
    from rvc_batch.engine.checkpoints import CheckpointHeader
    from rvc_batch.engine.torch_nets.layers import canonical_shapes
    from rvc_batch.engine.torch_nets.synthesizer import Synthesizer

    rng = np.random.default_rng(7)
    tensors = {
        key: (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 4))).astype(np.float32)
        for key, shape in canonical_shapes(Synthesizer(config)).items()
    }
    header = CheckpointHeader(NetworkKind.SYNTHESIZER, config, "random", "0" * 64)
    write_checkpoint(path, header, tensors)
    return Voice.open("random", path, None)


@pytest.mark.parametrize(
    ("sample_rate", "rates", "kernels"),
    [(24_000, (10, 6, 2, 2), (20, 12, 4, 4)), (22_500, (9, 5, 5), (18, 10, 10)), (30_000, (10, 10, 3), (16, 16, 7))],
)
def test_backends_agree_on_rates_that_no_golden_output_has(
    open_networks: OpenBackend,
    voice: Voice,
    tmp_path: Path,
    sample_rate: int,
    rates: tuple[int, ...],
    kernels: tuple[int, ...],
) -> None:
    config = dataclasses.replace(voice.config, sample_rate=sample_rate, upsample_rates=rates, upsample_kernels=kernels)
    other = random_voice(config, tmp_path / "voice.safetensors")
    x = inputs(config, 45)
    latent = golden_io.normal(1, (45, config.inter_channels))
    audio = []
    for framework in ("mlx", "torch"):
        backend = open_networks(framework, "tiny")
        backend.load_voice(other)
        audio.append(backend.decode(latent, x))
    assert audio[0].shape == (45 * sample_rate // 100,)
    assert np.abs(audio[1]).max() > 0.01
    np.testing.assert_allclose(audio[0], audio[1], atol=1e-5)


@pytest.mark.parametrize("seconds", [4.0, 4.33])
def test_backends_agree_on_noise(open_networks: OpenBackend, seconds: float) -> None:
    wave = golden_io.normal(3, (int(16_000 * seconds),)) * np.float32(0.1)
    ours, theirs = (open_networks(framework, "tiny") for framework in ("mlx", "torch"))
    for ask in (
        lambda b: b.content(wave, layer=9, project=True),
        lambda b: b.pitch_salience(wave, padding=MelPadding.REFLECT),
    ):
        np.testing.assert_allclose(ask(ours), ask(theirs), atol=2e-4)


def test_matrix_product_is_measured_in_gflops() -> None:
    from rvc_batch.engine.mlx_nets.backend import matmul_gflops

    assert matmul_gflops(64) > 0.01

"""RefineGAN voices equal Applio's, stage by stage, in both backends, and are rendered in tiles.

`refinegan.npz` and how it was made: README.md beside this file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import soundfile as sf
import torch
from scipy.special import erfinv, i0

from rvc_batch.engine.backend import Backend, open_backend
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.decimation import BETA, LOBES, ROLLOFF, decimation_kernel, decimation_reach
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.excitation import HarmonicPhase, source_noise, stage_noise_key
from rvc_batch.engine.memory import Needs
from rvc_batch.engine.mlx_nets.position_noise import normal_noise as mlx_noise
from rvc_batch.engine.mlx_nets.refinegan import RefineGenerator as MlxGenerator
from rvc_batch.engine.mlx_nets.refinegan import decimated as mlx_decimated
from rvc_batch.engine.network_config import REFINE_SLOPE, REFINEGAN
from rvc_batch.engine.precision import Precision
from rvc_batch.engine.requests import silent_inputs
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import WorkSizes, generator_halo, synthesis_halo, synthesis_tiles
from rvc_batch.engine.torch_nets.position_noise import normal_noise as torch_noise
from rvc_batch.engine.torch_nets.refinegan import RefineGenerator as TorchGenerator
from rvc_batch.engine.torch_nets.refinegan import decimated as torch_decimated
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer
from rvc_batch.engine.types import NoiseOrigin, PitchTrack, SynthesisInputs
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelKeys, ModelNotRvc
from rvc_batch.importers.identify import read_network
from tests.conftest import OpenBackend, imported

RECORDED: dict[str, np.ndarray] = dict(np.load(Path(__file__).with_name("refinegan.npz")))
ORIGIN = NoiseOrigin(int(RECORDED["key"]), int(RECORDED["frame"]))
KERNELS = {"40k": [16, 16, 4, 4], "24k": [20, 12, 4, 4], "odd": [18, 10, 10]}
SHORT_SEGMENTS = replace(RVC_2023, centre=16_000, query=4_000, longest=20_000)
OpenRefine = Callable[[str], Voice]


def of(name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in RECORDED.items() if key.startswith(f"{name}/")}


def relative_l2(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def export(checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a voice as Applio exports it: a recorded generator and its speaker, the rest of a tiny standard voice."""

    @functools.cache
    def write(name: str) -> Path:
        file, recorded = (
            torch.load(checkpoints("tiny") / "voices" / "v2_40k_f0_feat48.pth", weights_only=True),
            of(name),
        )
        weight = {key: value for key, value in file["weight"].items() if not key.startswith("dec.")}
        weight["emb_g.weight"] = weight["emb_g.weight"].float()
        weight["emb_g.weight"][0] = torch.from_numpy(recorded["speaker"])
        weight |= {key: torch.from_numpy(value) for key, value in recorded.items() if key.startswith("dec.")}
        config, rate = list(file["config"]), int(recorded["sample_rate"])
        config[12:15] = recorded["rates"].tolist(), 2 * recorded["dec.mel_conv.bias"].size, KERNELS[name]
        config[17] = rate
        path = tmp_path_factory.mktemp("refine") / f"{name}.pth"
        torch.save(file | {"weight": weight, "config": config, "sr": rate, "vocoder": REFINEGAN}, path)
        return path

    return write


@pytest.fixture(scope="module")
def refine_voice(export: Callable[[str], Path]) -> OpenRefine:
    @functools.cache
    def opened(name: str) -> Voice:
        return Voice.open(name, imported(export(name), export(name).with_suffix(".safetensors")), None)

    return opened


@pytest.fixture
def open_on(open_networks: OpenBackend, framework: str, refine_voice: OpenRefine) -> Callable[[str], Backend]:
    def opened(name: str) -> Backend:
        backend = open_networks(framework, "tiny")
        backend.load_voice(refine_voice(name))
        return backend

    return opened


def phase_of(voice: Voice, f0: np.ndarray) -> HarmonicPhase:
    return HarmonicPhase.of(PitchTrack(f0), voice.sample_rate, voice.config.hop_samples, is_gliding=True)


def inputs(voice: Voice, source: np.ndarray, f0: np.ndarray, origin: NoiseOrigin) -> SynthesisInputs:
    content = np.random.default_rng(1).standard_normal((f0.size, voice.config.feature_dim), dtype=np.float32)
    return SynthesisInputs(content, PitchTrack(f0).coarse(), source, 0, f0.size, origin)


def watch_stages(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return a list that fills with what the stages of either backend return, [T, C]."""
    seen: list[np.ndarray] = []
    stage = MlxGenerator._stage

    def watched(self: MlxGenerator, i: int, x: mx.array, source: mx.array, origin: mx.array) -> mx.array:
        y = stage(self, i, x, source, origin)
        seen.append(np.array(y))
        return y

    def hooked(_block: torch.nn.Module, _inputs: Any, y: torch.Tensor) -> None:
        seen.append(torch.nn.functional.leaky_relu(y, REFINE_SLOPE)[0].T.numpy())

    forward = TorchGenerator.forward

    def with_hooks(self: TorchGenerator, *arrays: torch.Tensor) -> torch.Tensor:
        handles = [block.register_forward_hook(hooked) for block in self.upsample_conv_blocks]
        audio: torch.Tensor = forward(self, *arrays)
        for handle in handles:
            handle.remove()
        return audio

    monkeypatch.setattr(MlxGenerator, "_stage", watched)
    monkeypatch.setattr(TorchGenerator, "forward", with_hooks)
    return seen


@pytest.mark.parametrize("name", KERNELS)
def test_the_sine_is_the_original_s(refine_voice: OpenRefine, name: str) -> None:
    recorded = of(name)
    ours = phase_of(refine_voice(name), recorded["f0"]).source(0, recorded["f0"].size, recorded["source_noise"])
    assert relative_l2(ours, recorded["sines"]) < 1e-3  # the original sums the phase in float32


@pytest.mark.parametrize("name", KERNELS)
def test_source_stages_and_audio_are_the_original_s(
    open_on: Callable[[str], Backend], refine_voice: OpenRefine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    backend, recorded = open_on(name), of(name)
    x = inputs(refine_voice(name), recorded["sines"], recorded["f0"], ORIGIN)
    assert relative_l2(backend.excitation(x), recorded["source"]) < 1e-5
    stages = watch_stages(monkeypatch)
    audio = backend.generate(np.ascontiguousarray(recorded["z"].T), x)
    assert len(stages) == len(KERNELS[name])
    for i, ours in enumerate(stages):
        theirs = recorded[f"stage{i}"]  # every seventh sample, before the activation
        theirs = np.where(theirs > 0, theirs, REFINE_SLOPE * theirs)
        assert relative_l2(ours.T[:, ::7], theirs) < 2e-5, f"stage {i}"
    assert relative_l2(audio, recorded["audio"]) < 2e-5


def reference_noise(key: int, place: int, first: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the noise of a place by its definition in ADR 0012, in numpy: what the recording was made with."""
    word = np.uint32

    def mixed(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> word(16))) * word(0x21F0AAAD)
        x = (x ^ (x >> word(15))) * word(0xD35A2D97)
        return x ^ (x >> word(15))

    own = mixed(np.array([(key + place * 0x9E3779B9) % 2**32], word))
    row = mixed(((first + np.arange(shape[0])) % 2**32).astype(word) ^ own)
    bits = mixed(row[:, None] + np.arange(shape[1], dtype=word) * word(0x9E3779B9))
    return np.sqrt(2) * erfinv(((bits >> word(9)).astype(np.float64) + 0.5) * 2.0**-22 - 1)


@pytest.mark.parametrize(("key", "place", "first"), [(0, 0, 0), (2**32 - 1, 23, 7), (12345, 5, 2**32 - 40)])
def test_noise_is_a_function_of_key_place_and_position(framework: str, key: int, place: int, first: int) -> None:
    def drawn(first: int, rows: int) -> np.ndarray:
        if framework == "torch":
            return torch_noise(torch.tensor(key), place, torch.tensor(first), (rows, 9)).numpy()
        return np.array(mlx_noise(mx.array(key, mx.uint32), place, mx.array(first, mx.uint32), (rows, 9)))

    whole = drawn(first, 100)
    np.testing.assert_allclose(whole, reference_noise(key, place, first, (100, 9)), rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(drawn((first + 60) % 2**32, 20), whole[60:80])


def test_noise_is_standard_normal_and_unrelated_across_places_channels_and_time() -> None:
    a, b = (reference_noise(stage_noise_key(1), place, 0, (40_000, 8)) for place in (0, 1))
    for moment, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert abs(float((a**moment).mean()) - expected) < 0.06
    # of 40 000 or more pairs: a correlation has a deviation of 0.005 at most
    assert abs(float((a * b).mean())) < 0.01
    assert abs(float((a[1:] * a[:-1]).mean())) < 0.01
    assert np.abs(np.corrcoef(a.T) - np.eye(8)).max() < 0.025
    spectrum = (np.abs(np.fft.rfft(a[:, 0]))[1:] ** 2).reshape(-1, 100).mean(axis=1)
    assert spectrum.std() / spectrum.mean() < 0.15  # white: a mean of a hundred has a deviation of 0.1


@pytest.mark.parametrize("rate", [2, 5, 6, 10, 12])
def test_the_low_pass_is_the_documented_sinc(rate: int) -> None:
    kernel, reach = decimation_kernel(rate), decimation_reach(rate)
    assert reach == int(np.ceil(LOBES * rate / ROLLOFF))
    assert kernel.size == 2 * reach + rate
    for tap in (0, 1, reach - rate, reach, reach + 1, 2 * reach):
        t = min(max((tap - reach) * ROLLOFF / rate, -LOBES), LOBES)
        sinc = 1.0 if t == 0 else np.sin(np.pi * t) / (np.pi * t)
        window = i0(BETA * np.sqrt(1 - (t / LOBES) ** 2)) / i0(BETA)
        assert kernel[tap] == pytest.approx(ROLLOFF / rate * sinc * window, rel=1e-5, abs=1e-12)
    # what it is for: what lies well below the new Nyquist frequency passes, what lies above does not fold down
    response = np.abs(np.fft.rfft(kernel.astype(np.float64), 1 << 16))
    nyquist = (response.size - 1) / rate
    np.testing.assert_allclose(response[: int(0.87 * nyquist)], 1.0, atol=1e-6)
    assert response[round(ROLLOFF * nyquist)] == pytest.approx(0.5, abs=5e-3)
    assert response[int(1.02 * nyquist) :].max() < 1e-6


@pytest.mark.parametrize("rate", [1, 2, 5, 10])
@pytest.mark.parametrize("length", [3, 32, 100])
def test_decimation_is_a_product_with_the_low_pass_at_every_rate_th_sample(
    framework: str, rate: int, length: int
) -> None:
    x = np.random.default_rng(rate).standard_normal((length * rate, 3), dtype=np.float32)
    if framework == "torch":
        ours = torch_decimated(torch.from_numpy(x).T[None], rate)[0].T.numpy()
    else:
        ours = np.array(mlx_decimated(mx.array(x), rate))
    kernel, reach = decimation_kernel(rate).astype(np.float64), decimation_reach(rate)
    padded = np.pad(x.astype(np.float64), ((reach, reach + rate), (0, 0)))
    expected = np.stack([kernel @ padded[j * rate : j * rate + kernel.size] for j in range(length)])
    assert ours.shape == (length, 3)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize(("name", "size"), [("40k", 37), ("40k", 64), ("40k", 150), ("24k", 37), ("odd", 37)])
def test_tiles_make_the_same_audio_as_the_whole(
    open_on: Callable[[str], Backend], refine_voice: OpenRefine, name: str, size: int
) -> None:
    backend, voice, frames = open_on(name), refine_voice(name), 400
    halo, hop = synthesis_halo(voice.config), voice.config.hop_samples
    assert frames > halo.before + halo.after + 64  # or no tile is shorter than the whole
    f0 = np.linspace(90, 900, frames, dtype=np.float32)
    f0[150:180] = 0
    source = phase_of(voice, f0).source(0, frames, source_noise(3, 0, frames * hop))
    x = inputs(voice, source, f0, NoiseOrigin(stage_noise_key(3), 70))
    latent = np.random.default_rng(2).standard_normal((frames, voice.config.inter_channels), dtype=np.float32)
    whole, shortest = backend.decode(latent, x), frames
    for tile in synthesis_tiles(0, frames, frames, size, halo):
        padded = np.concatenate([latent, np.zeros((max(tile.last - frames, 0), latent.shape[1]), np.float32)])
        made = backend.decode(padded[tile.first : tile.last], x.cut(tile.first, tile.last))
        kept = made[(tile.keep_first - tile.first) * hop : (tile.keep_last - tile.first) * hop]
        np.testing.assert_allclose(kept, whole[tile.keep_first * hop : tile.keep_last * hop], rtol=0, atol=2e-6)
        shortest = min(shortest, tile.last - tile.first)
    assert shortest < frames


@pytest.mark.parametrize("name", KERNELS)
def test_the_halo_is_the_reach(refine_voice: OpenRefine, name: str) -> None:
    """In double precision, positive weights, no noise: one frame of source or latent is heard where it reaches."""
    config, frames = refine_voice(name).config, 260
    network = Synthesizer(config).double()
    halo, hop = generator_halo(config), config.hop_samples
    with torch.no_grad():
        for key, value in network.named_parameters():
            is_noise = "upsample_conv_blocks" in key and value.ndim == 1
            value.fill_(0.0 if is_noise or key.endswith(("bias", "emb_g.weight")) else 0.02)
    middle = frames // 2

    def heard(*, at_source: bool) -> list[int]:
        z = torch.zeros(1, config.inter_channels, frames, dtype=torch.float64)
        source = torch.zeros(frames * hop, dtype=torch.float64)
        if at_source:
            source[middle * hop : (middle + 1) * hop] = 1.0
        else:
            z[..., middle] = 1.0
        audio = network.generate(z, source, 0).detach().reshape(frames, hop)
        return audio.abs().amax(dim=1).nonzero()[:, 0].tolist()  # type: ignore[no-any-return]

    of_source, of_latent = heard(at_source=True), heard(at_source=False)
    assert (of_source[0], of_source[-1]) == (middle - halo.after, middle + halo.before)
    assert of_source[0] < of_latent[0] < of_latent[-1] < of_source[-1]


def test_a_tile_stays_below_what_the_memory_model_says(open_networks: OpenBackend, refine_voice: OpenRefine) -> None:
    backend, voice, frames = open_networks("mlx", "tiny"), refine_voice("40k"), 3_000
    backend.load_voice(voice)
    configs = backend.content_config, backend.pitch_config, voice.config
    needs = Needs.of(backend.appetite, *configs, loaded=0, rules=RVC_2023)
    backend.release()
    backend.peak_memory()
    held = backend.memory()
    assert held is not None
    backend.decode(np.zeros((frames, voice.config.inter_channels), np.float32), silent_inputs(voice.config, frames))
    modelled = needs.tile(frames - needs.tile_halo)
    assert modelled / 20 < backend.peak_memory() - held.active <= modelled  # other tests may hold networks


def test_half_precision_is_near(
    networks: Callable[[str], Path],
    open_networks: OpenBackend,
    refine_voice: OpenRefine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, recorded, audio = networks("tiny"), of("24k"), []
    stages = watch_stages(monkeypatch)
    half = open_backend(
        "mlx", hubert=folder / "hubert.safetensors", rmvpe=folder / "rmvpe.safetensors", precision=Precision("float16")
    )
    for backend in (open_networks("mlx", "tiny"), half):
        backend.load_voice(refine_voice("24k"))
        x = inputs(refine_voice("24k"), recorded["sines"], recorded["f0"], ORIGIN)
        audio.append(backend.generate(np.ascontiguousarray(recorded["z"].T), x))
    assert [stage.dtype for stage in stages] == [np.float32] * 4 + [np.float16] * 4
    assert 0 < relative_l2(audio[1], audio[0]) < 0.02


def test_the_source_of_a_piece_is_a_piece_of_the_source(refine_voice: OpenRefine) -> None:
    voice, f0 = refine_voice("24k"), np.linspace(90, 900, 50, dtype=np.float32)
    f0[23:26] = 0
    hop, track = voice.config.hop_samples, phase_of(voice, f0)
    noise = source_noise(3, 0, 50 * hop)
    whole = track.source(0, 50, noise)
    for first, frames in ((0, 10), (20, 10), (40, 10)):
        piece = track.source(first, frames, noise[first * hop : (first + frames) * hop])
        np.testing.assert_array_equal(piece, whole[first * hop : (first + frames) * hop])
    # and its phase never jumps: a sine of at most 900 Hz, of amplitude 0.1, moves so much per sample
    silent = track.source(0, 50, np.zeros_like(noise))[: 22 * hop]
    assert np.abs(np.diff(silent)).max() < 0.1 * 2 * np.pi * 900 / voice.sample_rate


@pytest.mark.parametrize("name", ["24k", "40k"])
def test_a_file_is_converted_to_its_exact_length_whatever_the_tiles(
    tmp_path: Path,
    open_on: Callable[[str], Backend],
    refine_voice: OpenRefine,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    backend, tiles = open_on(name), list[SynthesisInputs]()
    decode, found = backend.decode, dict[str, np.ndarray]()

    def watched(latent: np.ndarray, x: SynthesisInputs) -> np.ndarray:
        tiles.append(x)
        return decode(latent, x)

    monkeypatch.setattr(backend, "decode", watched)
    wave = 0.3 * np.sin(np.cumsum(np.linspace(0.02, 0.12, 44_101))) + np.random.default_rng(0).normal(0, 0.01, 44_101)
    sf.write(tmp_path / "in.wav", wave, 16_000)
    settings = ConversionSettings(index_rate=0.0, output_format="wav32f", seed=5)
    audio = []
    for size in (1_000, 64):
        converter = Converter(backend, scratch=tmp_path, sizes=WorkSizes(tile_frames=size))
        target = tmp_path / f"{size}.wav"
        converter.convert(
            tmp_path / "in.wav",
            target,
            voice=refine_voice(name),
            settings=settings,
            rules=SHORT_SEGMENTS,
            inspect=found.__setitem__,
        )
        audio.append(sf.read(target)[0])
    rate = refine_voice(name).sample_rate
    assert audio[0].size == round(44_101 * rate / 16_000)
    assert np.abs(audio[0]).max() > 0.01
    np.testing.assert_allclose(audio[1], audio[0], rtol=0, atol=4e-6)
    # sine and noise of every tile are those of its place in the file
    assert len({x.origin.frame for x in tiles}) > 4
    hop, phase = refine_voice(name).config.hop_samples, phase_of(refine_voice(name), found["pitchf"])
    for x in tiles:
        first, frames = x.origin.frame, x.valid - 2  # a file's last frames have neighbours beyond what is told
        expected = phase.source(first, frames, source_noise(5, first * hop, frames * hop))
        np.testing.assert_array_equal(x.source[: frames * hop], expected)
        assert x.origin.key == stage_noise_key(5)


def changed(export: Path, target: Path, key: str, value: torch.Tensor | None) -> Path:
    file = torch.load(export, weights_only=True)
    weight = {k: v for k, v in file["weight"].items() if k != key}
    torch.save(file | {"weight": weight if value is None else weight | {key: value}}, target)
    return target


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dec.upsample_conv_blocks.1.blocks.2.0.weight", None, r"missing \(dec\.upsample_conv_blocks\.1\.blocks\.2\.0"),
        ("dec.upsample_conv_blocks.1.blocks.3.0.weight", torch.zeros(16), r"unexpected \(dec\.upsample_conv_blocks"),
        ("dec.mel_conv.bias", torch.zeros(5), r"dec\.mel_conv\.bias is \[5\], expected \[32\]"),
        ("dec.m_source.merge.0.bias", torch.zeros(1), r"unexpected \(dec\.m_source\.merge\.0\.bias"),
    ],
)
def test_what_does_not_fit_is_named(
    export: Callable[[str], Path], tmp_path: Path, key: str, value: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ModelKeys, match=message):
        read_network(changed(export("40k"), tmp_path / "a.pth", key, value))


def test_the_other_spelling_of_weight_norm_is_the_same_voice(export: Callable[[str], Path], tmp_path: Path) -> None:
    file = torch.load(export("24k"), weights_only=True)
    spelt = {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for key, value in file["weight"].items()
    }
    assert spelt.keys() != file["weight"].keys()
    torch.save(file | {"weight": spelt}, tmp_path / "a.pth")
    ours, theirs = read_network(tmp_path / "a.pth").tensors, read_network(export("24k")).tensors
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_a_voice_of_another_kind_is_refused(
    export: Callable[[str], Path], checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    standard = torch.load(checkpoints("tiny") / "voices" / "v2_40k_f0_feat48.pth", weights_only=True)
    torch.save(standard | {"vocoder": REFINEGAN}, tmp_path / "a.pth")
    with pytest.raises(ModelKeys, match="missing"):
        read_network(tmp_path / "a.pth")
    file = torch.load(export("40k"), weights_only=True)
    config = list(file["config"])
    config[13] = 48
    torch.save(file | {"config": config}, tmp_path / "b.pth")
    with pytest.raises(ModelNotRvc, match="48 channels do not halve 5 times"):
        read_network(tmp_path / "b.pth")

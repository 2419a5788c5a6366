"""Tiled equals untiled, and the halo is as long as it must be: not a frame less, not a frame more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.excitation import HarmonicPhase, source_noise
from rvc_batch.engine.network_config import RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.tiling import (
    FLOW_REACH,
    few_lengths,
    generator_halo,
    pitch_halo,
    pitch_reach,
    synthesis_halo,
    synthesis_tiles,
    tiles,
)
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer
from rvc_batch.engine.types import F32, PitchTrack, SynthesisInputs
from rvc_batch.engine.voice import Voice

VOICES = [
    "v1_32k_f0",
    "v1_40k_f0",
    "v1_48k_f0",
    "v1_40k_nof0",
    "v1_48k_nof0",
    "v2_32k_f0",
    "v2_40k_f0",
    "v2_48k_f0",
    "v2_32k_nof0",
    "applio_v2_40k",
]
FRAMES = 130
# relative to full scale; the two sides differ by the order of float32 additions only
TOLERANCE = 2e-6


def random_inputs(config: SynthesizerConfig, frames: int) -> SynthesisInputs:
    rng = np.random.default_rng(11)
    track = PitchTrack((150 * 2 ** np.sin(np.arange(frames) / 15)).astype(np.float32))
    hop = config.hop_samples
    noise = source_noise(3, 0, frames * hop)
    phase = HarmonicPhase.of(track, config.sample_rate, hop)
    return SynthesisInputs(
        content=rng.standard_normal((frames, config.feature_dim)).astype(np.float32),
        coarse=track.coarse() if config.has_f0 else np.zeros(0, np.int64),
        source=phase.source(0, frames, noise) if config.has_f0 else np.zeros(0, np.float32),
        speaker=0,
        valid=frames,
    )


def decoded_in_tiles(backend: Backend, latent: F32, x: SynthesisInputs, config: SynthesizerConfig, size: int) -> F32:
    hop = config.hop_samples
    pieces = []
    for tile in tiles(0, x.frames, x.frames, size, synthesis_halo(config)):
        audio = backend.decode(latent[tile.first : tile.last], x.cut(tile.first, tile.last))
        pieces.append(audio[(tile.keep_first - tile.first) * hop : (tile.keep_last - tile.first) * hop])
    return np.concatenate(pieces)


@pytest.mark.parametrize("name", VOICES)
def test_decoding_in_tiles_equals_decoding_at_once(
    framework: str,
    name: str,
    open_networks: Callable[[str, str], Backend],
    open_voice: Callable[[str, str], Voice],
) -> None:
    backend, voice = open_networks(framework, "tiny"), open_voice("tiny", name)
    backend.load_voice(voice)
    x = random_inputs(voice.config, FRAMES)
    latent = np.random.default_rng(5).standard_normal((FRAMES, voice.config.inter_channels)).astype(np.float32)
    whole = backend.decode(latent, x)
    assert np.abs(whole).max() > 0.01
    for size in (13, 32, 50, 64, 129):
        tiled = decoded_in_tiles(backend, latent, x, voice.config, size)
        assert tiled.shape == whole.shape
        assert np.abs(tiled - whole).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["v2_40k_f0", "v1_48k_nof0"])
def test_frames_beyond_the_end_change_nothing_that_is_kept(
    framework: str,
    name: str,
    open_networks: Callable[[str, str], Backend],
    open_voice: Callable[[str, str], Voice],
) -> None:
    backend, voice = open_networks(framework, "tiny"), open_voice("tiny", name)
    backend.load_voice(voice)
    config, context, total = voice.config, 42, 150
    x = random_inputs(config, total)
    latent = np.random.default_rng(5).standard_normal((few_lengths(total), config.inter_channels)).astype(np.float32)
    latent[total:] = 0
    whole = backend.decode(latent[:total], x)
    (tile,) = synthesis_tiles(context, total - context, total, 1_000, synthesis_halo(config))
    assert (tile.first, tile.last) == (0, few_lengths(total))
    padded = backend.decode(latent, x.cut(tile.first, tile.last))
    hop = config.hop_samples
    kept = slice(tile.keep_first * hop, tile.keep_last * hop)
    assert np.abs(padded[kept] - whole[kept]).max() <= TOLERANCE
    assert np.abs(padded[: total * hop] - whole).max() > 1e-3  # beyond what is kept they are heard

    for masked, plain in zip(backend.encode_prior(x.cut(0, few_lengths(total))), backend.encode_prior(x), strict=True):
        np.testing.assert_allclose(masked[:total], plain, atol=1e-5 * np.abs(plain).max())


def positive(network: torch.nn.Module) -> torch.nn.Module:
    """Make every weight positive and every bias zero, in double precision.

    Silence then maps to exactly zero, and an impulse to something that is not zero wherever it can reach: no two paths
    cancel and nothing is lost to rounding against a larger value.
    """
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if value.dtype.is_floating_point:
                is_silent = name.endswith(("bias", "running_mean", "emb_g.weight"))
                value.fill_(0.0 if is_silent else 1.0 if name.endswith("running_var") else 0.02)
    return network.double()


def impulse(*shape: int, at: int) -> torch.Tensor:
    """Return zeros with one frame (the last axis) of ones."""
    x = torch.zeros(*shape, dtype=torch.float64)
    x[..., at] = 1.0
    return x


def frames_reached(y: torch.Tensor, hop: int) -> list[int]:
    """Return which frames of `hop` values are not all zero."""
    return y.detach().reshape(-1, hop).abs().amax(dim=1).nonzero()[:, 0].tolist()


CONFIGS = {
    "40k": ((10, 10, 2, 2), (16, 16, 4, 4), 40_000),
    "48k": ((12, 10, 2, 2), (24, 20, 4, 4), 48_000),
    "32k five stages": ((10, 4, 2, 2, 2), (16, 16, 4, 4, 4), 32_000),
}


def synthesizer_config(name: str, has_f0: bool) -> SynthesizerConfig:
    rates, kernels, sample_rate = CONFIGS[name]
    return SynthesizerConfig(
        version="v2",
        feature_dim=8,
        has_f0=has_f0,
        sample_rate=sample_rate,
        inter_channels=4,
        hidden_channels=4,
        filter_channels=8,
        n_heads=2,
        n_layers=1,
        kernel_size=3,
        resblock_kernels=(3, 7, 11),
        resblock_dilations=((1, 3, 5),) * 3,
        upsample_rates=rates,
        upsample_initial_channels=64,
        upsample_kernels=kernels,
        n_speakers=1,
        gin_channels=2,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_generators_halo_is_its_reach(name: str) -> None:
    config = synthesizer_config(name, has_f0=False)
    network = positive(Synthesizer(config))
    audio = network.generate(impulse(1, 4, 60, at=30), torch.zeros(0, dtype=torch.float64), 0)
    halo = generator_halo(config)
    # frame 30 is heard by the frames that have it in their halo
    assert frames_reached(audio, config.hop_samples) == list(range(30 - halo.after, 30 + halo.before + 1))


def test_the_flows_reach_is_24_frames() -> None:
    network = positive(Synthesizer(synthesizer_config("40k", has_f0=False)))
    z = network.reverse_flow(impulse(1, 4, 100, at=50), 0, 100)
    assert FLOW_REACH == 24
    assert frames_reached(z[0].T.contiguous(), 4) == list(range(50 - FLOW_REACH, 50 + FLOW_REACH + 1))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_source_reaches_no_further_than_the_halo(name: str) -> None:
    config = synthesizer_config(name, has_f0=True)
    network = positive(Synthesizer(config))
    hop, halo = config.hop_samples, generator_halo(config)
    source = torch.zeros(60 * hop, dtype=torch.float64)
    source[30 * hop : 31 * hop] = 1.0
    frames = frames_reached(network.generate(torch.zeros(1, 4, 60, dtype=torch.float64), source, 0), hop)
    assert 30 - halo.after <= frames[0] < 30 < frames[-1] <= 30 + halo.before


@pytest.mark.parametrize(("n_blocks", "n_mid_levels"), [(1, 1), (2, 2), (4, 4)])
def test_the_pitch_networks_halo_is_its_reach(n_blocks: int, n_mid_levels: int) -> None:
    config = RmvpeConfig(
        base_channels=1,
        n_levels=5,
        n_blocks=n_blocks,
        n_mid_levels=n_mid_levels,
        gru_hidden=4,
        n_gru_layers=1,
        n_mels=32,
        n_bins=360,
    )
    network = positive(Rmvpe(config).eval())
    first, last = pitch_reach(config)
    halo = pitch_halo(config)
    cell = config.frame_multiple
    at = halo.before + cell * 2
    heard = []
    for frame in (at + first - 1, at + first, at + last, at + last + 1):
        mel = impulse(32, at + halo.after + cell * 3, at=frame).T.contiguous()
        with torch.inference_mode():
            heard.append(bool(network.planes(mel)[0, at : at + cell].abs().max() > 0))
    assert heard == [False, True, True, False]
    assert halo.before % cell == halo.after % cell == 0
    assert halo.before - cell < -first <= halo.before

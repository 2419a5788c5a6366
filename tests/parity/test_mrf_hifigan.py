"""MRF HiFi-GAN voices equal Applio's, from the source to the audio, in both backends, and are rendered in tiles.

`mrf_hifigan.npz` was recorded with the generator of Applio's rvc/lib/algorithm/generators/hifigan_mrf.py @ 0f98c61 in
torch 2.13, float32, CPU, in the sizes of the tiny voice: its weights (`dec.*`, half precision, named as Applio saves
them), its inputs z [C, T] and f0 [T], the numbers it drew (`phases` [9], `noise` [N, 9]), and what it made of them:
`sines` [N, 9], `source` [N], `audio` [N]. Speaker 0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.excitation import HarmonicPhase, first_phases, source_noise
from rvc_batch.engine.network_config import MRF_HIFIGAN
from rvc_batch.engine.tiling import synthesis_halo, synthesis_tiles
from rvc_batch.engine.types import PitchTrack, SynthesisInputs
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelKeys, ModelNotRvc
from rvc_batch.importers.identify import read_network
from tests.conftest import OpenBackend, imported

RECORDED = dict(np.load(Path(__file__).with_name("mrf_hifigan.npz")))
STANDARD = "v2_40k_f0_feat48"


def relative_l2(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def export(checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a voice as Applio exports it: the recorded generator, the rest of the tiny standard voice."""
    file = torch.load(checkpoints("tiny") / "voices" / f"{STANDARD}.pth", weights_only=True)
    others = {key: value for key, value in file["weight"].items() if not key.startswith("dec.")}
    own = {key: torch.from_numpy(value) for key, value in RECORDED.items() if key.startswith("dec.")}
    path = tmp_path_factory.mktemp("mrf") / "mrf.pth"
    torch.save({**file, "weight": others | own, "vocoder": MRF_HIFIGAN, "sr": 40_000}, path)
    return path


@pytest.fixture(scope="module")
def voice(export: Path) -> Voice:
    return Voice.open("mrf", imported(export, export.with_suffix(".safetensors")), None)


@pytest.fixture
def backend(open_networks: OpenBackend, framework: str, voice: Voice) -> Backend:
    backend = open_networks(framework, "tiny")
    backend.load_voice(voice)
    return backend


def inputs(voice: Voice, source: np.ndarray, f0: np.ndarray) -> SynthesisInputs:
    content = np.random.default_rng(1).standard_normal((f0.size, voice.config.feature_dim), dtype=np.float32)
    return SynthesisInputs(content, PitchTrack(f0).coarse(), source, 0, f0.size)


def test_the_sines_are_the_original_s(voice: Voice) -> None:
    phase = HarmonicPhase.of(PitchTrack(RECORDED["f0"]), voice.sample_rate, voice.config.hop_samples)
    ours = phase.source(0, RECORDED["f0"].size, RECORDED["noise"], 1.0, RECORDED["phases"].astype(np.float64))
    assert relative_l2(ours, RECORDED["sines"]) < 1e-3  # the original sums the phase in float32


def test_source_and_audio_are_the_original_s(backend: Backend, voice: Voice) -> None:
    x = inputs(voice, RECORDED["sines"], RECORDED["f0"])
    assert relative_l2(backend.excitation(x), RECORDED["source"]) < 1e-5
    assert relative_l2(backend.generate(np.ascontiguousarray(RECORDED["z"].T), x), RECORDED["audio"]) < 2e-5


@pytest.mark.parametrize("size", [7, 16, 33, 64, 100])
def test_tiles_make_the_same_audio_as_the_whole(backend: Backend, voice: Voice, size: int) -> None:
    frames, hop = 130, voice.config.hop_samples
    f0 = np.linspace(90, 900, frames, dtype=np.float32)
    noise = source_noise(3, 0, frames * hop, voice.config.n_harmonics)
    track = HarmonicPhase.of(PitchTrack(f0), voice.sample_rate, hop)
    x = inputs(voice, track.source(0, frames, noise, 1.0, first_phases(3, 9)), f0)
    latent = np.random.default_rng(2).standard_normal((frames, voice.config.inter_channels), dtype=np.float32)
    whole, halo = backend.decode(latent, x), synthesis_halo(voice.config)
    for tile in synthesis_tiles(0, frames, frames, size, halo):
        padded = np.concatenate([latent, np.zeros((max(tile.last - frames, 0), latent.shape[1]), np.float32)])
        made = backend.decode(padded[tile.first : tile.last], x.cut(tile.first, tile.last))
        kept = made[(tile.keep_first - tile.first) * hop : (tile.keep_last - tile.first) * hop]
        np.testing.assert_allclose(kept, whole[tile.keep_first * hop : tile.keep_last * hop], atol=2e-6)


def test_overtones_begin_where_the_seed_says_and_the_fundamental_at_zero() -> None:
    phases = first_phases(7, 9)
    assert phases[0] == 0
    assert len(set(phases)) == 9
    assert ((phases >= 0) & (phases < 1)).all()
    np.testing.assert_array_equal(phases, first_phases(7, 9))
    assert not np.array_equal(phases, first_phases(8, 9))


def test_the_source_of_a_piece_is_a_piece_of_the_source(voice: Voice) -> None:
    f0, hop = np.linspace(90, 900, 50, dtype=np.float32), voice.config.hop_samples
    track = HarmonicPhase.of(PitchTrack(f0), voice.sample_rate, hop)
    whole = track.source(0, 50, source_noise(3, 0, 50 * hop, 9), 1.0, first_phases(3, 9))
    piece = track.source(20, 10, source_noise(3, 20 * hop, 10 * hop, 9), 1.0, first_phases(3, 9))
    np.testing.assert_array_equal(piece, whole[20 * hop : 30 * hop])


def test_a_missing_and_an_extra_block_are_named(export: Path, tmp_path: Path) -> None:
    file = torch.load(export, weights_only=True)
    missing = {key: value for key, value in file["weight"].items() if "mrfs.1.2.layers.0.conv2.bias" not in key}
    torch.save({**file, "weight": missing}, tmp_path / "missing.pth")
    with pytest.raises(ModelKeys, match=r"dec\.resblocks\.5\.convs2\.0\.bias"):
        read_network(tmp_path / "missing.pth")
    extra = file["weight"] | {"dec.mrfs.0.3.layers.0.conv1.bias": torch.zeros(3)}
    torch.save({**file, "weight": extra}, tmp_path / "extra.pth")
    with pytest.raises(ModelKeys, match=r"dec\.mrfs\.0\.3\.layers\.0\.conv1\.bias"):
        read_network(tmp_path / "extra.pth")


def test_the_standard_generator_is_not_taken_for_it(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    file = torch.load(checkpoints("tiny") / "voices" / f"{STANDARD}.pth", weights_only=True)
    torch.save({**file, "vocoder": MRF_HIFIGAN}, tmp_path / "a.pth")
    with pytest.raises(ModelKeys, match=r"conv_post\.bias"):
        read_network(tmp_path / "a.pth")
    torch.save({**file, "vocoder": "BigVGAN"}, tmp_path / "b.pth")
    with pytest.raises(ModelNotRvc, match=r"BigVGAN.*expected HiFi-GAN or MRF HiFi-GAN or RefineGAN"):
        read_network(tmp_path / "b.pth")

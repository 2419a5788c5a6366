"""The whole recipe at its tiny scale, and a conversion with what it wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import rvc_batch
from rvc_batch.errors import ModelKeys
from rvc_batch.importers.adopt import adopt
from rvc_batch.importers.store import ModelStore
from tools.demo_voices import __main__ as recipe
from tools.demo_voices import corpus, envelopes
from tools.demo_voices.__main__ import make
from tools.demo_voices.given import Given
from tools.demo_voices.settings import TINY
from tools.demo_voices.speech import PHONES, RATE_HZ, Spoken, Style
from tools.demo_voices.voices import new_trainer


def buzz(voice: str, text: str, style: Style) -> Spoken:
    """Speak without a synthesiser: one harmonic tone per letter, the same phones for every voice."""
    phones = [0, *(1 + ord(letter) % (len(PHONES) - 1) for letter in text[:12]), 0]
    seconds = np.full(len(phones), 0.11 * style.stretch)
    ends = np.cumsum(seconds)
    time = np.arange(int(ends[-1] * RATE_HZ)) / RATE_HZ
    place = np.searchsorted(ends, time, side="right").clip(0, len(phones) - 1)
    f0 = {"slt": 190.0, "rms": 110.0}.get(voice, 90.0) * style.f0_factor
    wave = sum(np.sin(2 * np.pi * h * f0 * time) * np.cos(h * np.array(phones)[place]) / h for h in range(1, 8))
    wave = np.where(np.array(phones)[place] > 0, 0.1 * wave, 0.0)
    return Spoken((wave * 32767).astype(np.int16), np.array(phones, np.int16), ends.astype(np.float32))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder of the model files that a tiny run wrote, and its state folder."""
    folder = tmp_path_factory.mktemp("recipe")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (corpus, envelopes, recipe):
            patch.setattr(module, "speak", buzz)
        make(TINY, folder / "state", folder / "models")
    return folder / "models", folder / "state"


def test_files_are_taken_in_as_upstream_ones_and_convert(made: tuple[Path, Path], tmp_path: Path) -> None:
    models, _ = made
    home = tmp_path / "home"
    store = ModelStore(models=home / "models", voices=home / "voices", cache=home / "state" / "cache")
    for part in (models / "hubert_base.pt", models / "rmvpe.pt", models / "voices" / "slt", models / "voices" / "rms"):
        adopt(part, store)
    voice = store.voice("slt")
    assert voice.config.n_speakers == 1
    assert voice.index is not None
    source, results = tmp_path / "in.wav", []
    soundfile.write(source, buzz("rms", "Hello there", Style()).wave, RATE_HZ)
    for backend in ("mlx", "torch"):
        target = tmp_path / f"{backend}.wav"
        report = rvc_batch.convert(source, target, voice="slt", home=home, backend=backend)
        assert report.rate_out == RATE_HZ
        results.append(soundfile.read(target)[0])
    assert results[0].size == soundfile.info(source).frames
    np.testing.assert_allclose(results[0], results[1], atol=2e-3)


def test_second_run_trains_nothing_again_and_writes_the_same(made: tuple[Path, Path], tmp_path: Path) -> None:
    models, state = made
    before = {path.name: path.stat().st_mtime_ns for path in state.glob("*.pt")}
    with pytest.MonkeyPatch.context() as patch:
        for module in (corpus, envelopes):
            patch.setattr(module, "speak", lambda *_: pytest.fail("a sentence was read again"))
        make(TINY, state, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in state.glob("*.pt")} == before
    for name in ("voices/slt/slt.pth", "voices/rms/rms.pth", "rmvpe.pt", "hubert_base.pt"):
        first, second = (torch.load(folder / name, weights_only=True) for folder in (models, tmp_path))
        assert _flat(first).keys() == _flat(second).keys()
        assert all(torch.equal(value, _flat(second)[key]) for key, value in _flat(first).items())


def test_a_run_goes_on_from_the_model_files_of_another(made: tuple[Path, Path], tmp_path: Path) -> None:
    models, state = made
    (tmp_path / "corpus").symlink_to(state / "corpus")
    network, given = new_trainer(TINY).network, Given(models)
    assert given.has_voices(TINY)
    for number, voice in enumerate(TINY.targets):
        published = torch.load(models / "voices" / voice / f"{voice}.pth", weights_only=True)["weight"]
        given.fill_voice(network, TINY, voice)
        torch.testing.assert_close(network.emb_g.weight[number], published["emb_g.weight"][0].float())
        torch.testing.assert_close(network.dec.conv_pre.bias, published["dec.conv_pre.bias"].float())
    assert all(p.requires_grad for p in network.parameters())
    make(TINY, tmp_path, tmp_path / "models", given=given, only=["rms"])
    assert {p.name for p in tmp_path.glob("*.pt")} == {"rms.pt", "acoustic.pt"}
    parts = torch.load(tmp_path / "acoustic.pt", weights_only=True)["parts"]
    untrained = new_trainer(TINY)
    for voice in ("voice0", "voice1"):
        assert (parts[voice]["reader.bias"] - untrained.reader.bias).abs().max() > 0.1  # fitted: two steps go less far
    fixed = 2  # weight and bias of each reader
    latent = len(untrained.latent_parameters()) - fixed
    assert [len(group["params"]) for group in parts["optimiser"]["param_groups"]][1] == 2 * latent
    first, second = (torch.load(folder / "rmvpe.pt", weights_only=True) for folder in (models, tmp_path / "models"))
    for key, value in _flat(first).items():
        torch.testing.assert_close(_flat(second)[key], value, atol=2e-3, rtol=2e-3)
    assert not (tmp_path / "models" / "voices" / "slt").exists()
    for name in ("hubert_base.pt", "voices/rms/rms.pth"):
        before, after = (
            _flat(torch.load(folder / name, weights_only=True)) for folder in (models, tmp_path / "models")
        )
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[key], after[key]) for key in before)
        for key, value in before.items():
            torch.testing.assert_close(after[key], value, atol=0.02, rtol=0.05)  # it went on from there


def test_model_files_of_other_sizes_are_refused(made: tuple[Path, Path]) -> None:
    wider = replace(TINY, hubert=replace(TINY.hubert, hidden=24))
    with pytest.raises(ModelKeys, match=r"encoder"):
        Given(made[0]).content(wider)


def _flat(file: dict[str, object]) -> dict[str, torch.Tensor]:
    tensors = file.get("weight", file.get("model", file))
    assert isinstance(tensors, dict)
    return tensors

"""How content network and text encoders are taught by what the mouths of the targets do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rvc_batch.engine.types import PitchTrack
from tools.demo_voices import acoustic, content, crops, loop, losses, stretches
from tools.demo_voices.corpus import Utterance
from tools.demo_voices.settings import TINY
from tools.demo_voices.speech import Spoken, Style
from tools.demo_voices.voices import new_trainer


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tones(voice: str, text: int, slow: float) -> tuple[Utterance, NDArray[np.float16], NDArray[np.float32]]:
    """Return an utterance that says phone 1 to 10, its envelope, which is the number of the phone, and f0 likewise."""
    ends = slow * np.cumsum(np.random.default_rng(text).uniform(0.05, 0.2, 10))
    wave = np.random.default_rng(text).standard_normal(int(ends[-1] * 16_000)).astype(np.float32) * 0.1
    spoken = Spoken((wave * 32767).astype(np.int16), np.arange(1, 11, dtype=np.int16), ends.astype(np.float32))
    said = Utterance(voice, text, Style(), spoken)
    phone = spoken.phones[said.phone_at((np.arange(len(wave) // 160) + 0.5) / 100)[0]].astype(np.float32)
    return said, np.tile(phone.astype(np.float16), (losses.N_MELS, 1)), 100 + 10 * phone


def material_of(voices: dict[str, float], texts: int = 3) -> crops.Material:
    """Return what voices say that differ in how slow they are."""
    said = {voice: [tones(voice, text, slow) for text in range(texts)] for voice, slow in voices.items()}
    corpus = type("Corpus", (), {"by_voice": {voice: [u for u, *_ in rows] for voice, rows in said.items()}})()
    f0 = {voice: [track for *_, track in rows] for voice, rows in said.items()}
    return crops.Material(corpus, f0, {voice: [envelope for _, envelope, _ in rows] for voice, rows in said.items()})


@pytest.mark.parametrize("resampled", [0.0, 1.0])
def test_what_a_target_would_do_is_moved_to_where_the_source_says_it(
    monkeypatch: pytest.MonkeyPatch, resampled: float
) -> None:
    monkeypatch.setattr(crops, "CODE_SPREAD", 0.0)
    monkeypatch.setattr(stretches, "FASTER_SHARE", resampled)
    monkeypatch.setattr(stretches, "SPEED", (0.7, 0.71))
    material = material_of({"rms": 1.5, "slt": 1.0, "awb": 1.2})
    drawn = stretches.Stretches(material, ("rms", "slt"), 30).draw(40, np.random.default_rng(1))
    assert drawn.wave.shape == (40, content.samples_of(30))
    named = 1 + (drawn.state - 1) // content.THIRDS
    at_state = named.repeat_interleave(2, dim=1).float()
    for target in ("rms", "slt"):
        phone = drawn.envelope[target][:, 0]
        assert ((phone - at_state).abs() < 0.5).float().mean() > 0.85  # frames at borders may go either way
        codes = PitchTrack((100 + 10 * phone.numpy()).astype(np.float32).ravel()).coarse().reshape(phone.shape)
        assert np.mean(np.abs(codes - drawn.coarse[target].numpy()) <= 2) > 0.85


def test_sentences_that_a_target_says_otherwise_are_not_used() -> None:
    material = material_of({"rms": 1.5, "slt": 1.0, "awb": 1.2}, texts=1)
    [said] = material.corpus.by_voice["slt"]
    other = replace(said.spoken, phones=said.spoken.phones[::-1].copy())
    material.corpus.by_voice["slt"] = [replace(said, spoken=other)]
    assert set(stretches.Stretches(material, ("rms",), 15)._usable) == {"rms", "awb"}
    assert set(stretches.Stretches(material, ("slt",), 15)._usable) == {"slt"}
    with pytest.raises(ValueError, match="said alike by rms, slt"):
        stretches.Stretches(material, ("rms", "slt"), 15)


def test_stretches_for_the_generator_begin_with_a_pause_as_often_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    material = material_of({"slt": 1.0}, texts=1)
    [said], [track] = material.corpus.by_voice["slt"], material.f0["slt"]
    material.content = {"slt": [np.zeros((len(track) // 2, 4), np.float16)]}
    for share, always in ((1.0, True), (0.0, False)):
        monkeypatch.setattr(crops, "BEGINNING_SHARE", share)
        drawn = crops.Crops(material, {"slt": 0}, 10).draw(8, np.random.default_rng(1))
        begins = [bool(np.allclose(wave[:160], said.wave[:160])) for wave in drawn.wave.numpy()]
        assert all(begins) == always


def test_reader_of_a_given_voice_is_fitted_to_its_latents() -> None:
    voice, width = new_trainer(TINY), TINY.voice.inter
    matrix, bias = torch.randn(losses.N_MELS, width), torch.randn(losses.N_MELS, 1)
    network = content.ContentTrainer(TINY.hubert)

    class Drawn:
        def draw(self, count: int, random: np.random.Generator) -> stretches.Heard:
            wave = torch.from_numpy(random.standard_normal((count, 6800)).astype(np.float32))
            features = content.layers(network.network, wave)[-1]
            codes = torch.ones(count, 2 * features.shape[1], dtype=torch.long)
            before = torch.get_rng_state()
            speaker = torch.ones(count, dtype=torch.long)
            latent = voice.latent(features.repeat_interleave(2, dim=1), codes, speaker)
            torch.set_rng_state(before)  # whoever asks for the latent has this noise
            return stretches.Heard(wave, codes, {"rms": codes}, {"rms": matrix @ latent + bias})

    acoustic.fit_reader(TINY, Drawn(), network, voice, "rms")  # type: ignore[arg-type]
    torch.testing.assert_close(voice.reader.weight[:, :, 0], matrix, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(voice.reader.bias, bias[:, 0], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("is_shared", [True, False])
def test_content_network_and_text_encoders_learn_from_all_targets(tmp_path: Path, is_shared: bool) -> None:
    drawn = stretches.Stretches(material_of({"rms": 1.5, "slt": 1.0}), ("slt", "rms"), 15)
    one, network = new_trainer(TINY), content.ContentTrainer(TINY.hubert)
    voices = dict.fromkeys(("slt", "rms"), one) if is_shared else {"slt": one, "rms": new_trainer(TINY)}
    one.reader.requires_grad_(False)
    watched: dict[str, torch.nn.Module] = {"content": network.network.encoder, "text": one.network.enc_p}
    watched |= {"speakers": one.network.emb_g, "reader": one.reader, "generator": one.network.dec}
    watched |= {"other": voices["rms"].network.enc_p}
    before = {name: _numbers(module) for name, module in watched.items()}
    acoustic.train_acoustic(TINY, drawn, loop.Stage("acoustic", tmp_path, 2, seed=1), network, voices)
    moved = {name for name, module in watched.items() if not torch.equal(before[name], _numbers(module))}
    assert moved == {"content", "text", "speakers", "other"}
    speakers = before["speakers"].view(2, -1), _numbers(one.network.emb_g).view(2, -1)
    learnt = [bool((a - b).abs().max() > 1e-4) for a, b in zip(*speakers, strict=True)]  # weights decay by less
    assert learnt == [True, is_shared]


def _numbers(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def test_envelope_loss_hears_formants_more_than_harmonics() -> None:
    flat, bands = torch.zeros(1, losses.N_MELS, 30), torch.arange(losses.N_MELS)[None, :, None]
    formants, harmonics = (flat + torch.cos(np.pi * (bands + 0.5) * k / losses.N_MELS) for k in (4, 40))
    assert losses.envelope_loss(flat, flat) == 0
    assert losses.envelope_loss(formants, flat) > 1.2 * losses.envelope_loss(harmonics, flat)
    moving = formants * (torch.arange(30) % 10 < 5)
    assert losses.envelope_loss(moving, flat) > 1.3 * losses.envelope_loss(formants / 2, flat)  # as far, in the mean

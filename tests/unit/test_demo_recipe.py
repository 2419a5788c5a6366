"""The parts of the demonstration recipe that can be right or wrong before anything is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import expit, logit

from rvc_batch.engine.excitation import HarmonicPhase
from rvc_batch.engine.pitch import VOICING_THRESHOLD, decode_salience
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.torch_nets.hubert import Hubert
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from rvc_batch.engine.types import ContentFeatures, PitchTrack
from tools.demo_voices import alignment, content, crops, envelopes, export, loop, losses, pitch, sentences, synthesis
from tools.demo_voices.corpus import Utterance
from tools.demo_voices.features import warped
from tools.demo_voices.hearing import Hearing
from tools.demo_voices.settings import TINY
from tools.demo_voices.speech import PHONES, Spoken, Style
from tools.demo_voices.tracker import track_f0
from tools.demo_voices.voices import new_trainer, synthesizer_config


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def utterance(phones: list[int], ends: list[float], wave: NDArray[np.float32] | None = None) -> Utterance:
    wave = np.zeros(int(ends[-1] * 16_000), np.float32) if wave is None else wave
    spoken = Spoken((wave * 32767).astype(np.int16), np.array(phones, np.int16), np.array(ends, np.float32))
    return Utterance("slt", 0, Style(), spoken)


def test_sentences_are_different_repeatable_and_never_held_out() -> None:
    drawn = sentences.compose(900, seed=3)
    assert drawn == sentences.compose(900, seed=3) != sentences.compose(900, seed=4)
    assert len(set(drawn)) == 900
    assert not set(drawn) & set(sentences.HELD_OUT)
    assert all(s[0].isupper() or s[0].isdigit() for s in drawn)


def test_most_sentences_are_of_words_that_never_come_again() -> None:
    drawn = sentences.compose(900, seed=3)
    counts = Counter(word for sentence in drawn for word in sentence.lower().rstrip(".?!").split())
    once = [word for word, count in counts.items() if count == 1]
    assert len(once) > 2000


def test_envelope_of_several_readings_has_less_of_chance_than_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_voice: str, _text: str, style: Style) -> Spoken:
        comb = np.zeros(8000)
        comb[:: round(16_000 / (150.0 * style.f0_factor))] = 100.0
        wave = lfilter([1.0], [1.0, -1.6, 0.9], comb)  # a mouth of one formant
        return Spoken(wave.astype(np.int16), np.array([5], np.int16), np.array([0.5], np.float32))

    spoken = Utterance("slt", 0, Style(), read("", "", Style()))
    monkeypatch.setattr(envelopes, "speak", read)
    away = []
    for readings in ((), (0.9, 1.1)):
        monkeypatch.setattr(envelopes, "READINGS", readings)
        shown = envelopes._mean_envelope(spoken, "", 208).astype(np.float32)[:, 5:-5]
        away.append(float(np.std(shown, axis=1).mean()))  # the mouth does not move, so what moves is chance
    assert away[1] < 0.8 * away[0]
    calls = []
    monkeypatch.setattr(envelopes, "speak", lambda *_: calls.append(1) or spoken.spoken)
    envelopes._mean_envelope(spoken, "", 208)
    assert len(calls) == 1  # a voice whose pitch cannot be moved is not read again


def test_every_phone_has_three_states_and_silence_one() -> None:
    spoken = utterance([0, 5, 40], [0.3, 0.6, 0.9])
    times = np.array([0.1, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85])
    assert content.states(spoken, times).tolist() == [0, 13, 14, 15, 118, 119, 120]
    assert 1 + 3 * (len(PHONES) - 1) == content.N_STATES


def test_labels_follow_the_audio_through_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "disturb", lambda wave, random: wave)
    random = np.random.default_rng(1)
    ends = np.arange(1, 21) * 0.1
    loud = np.repeat(np.arange(20) % 2, 1600).astype(np.float32)
    spoken = utterance([7 * (i % 2) for i in range(20)], ends.tolist(), 0.5 * loud * random.standard_normal(32_000))
    for _ in range(20):
        wave, labels = content._item([spoken], 16_000, TINY.hubert.frames(16_000), random)
        centres = (content.frame_times(labels.size) * 16_000).astype(int)
        is_loud = np.array([np.abs(wave[c - 40 : c + 40]).mean() > 0.05 for c in centres])
        assert np.mean(is_loud == (labels > 0)) > 0.9  # frames that straddle a border may go either way


def test_tracker_names_the_pitch_of_a_gliding_voice_and_its_pauses() -> None:
    seconds = np.arange(32_000) / 16_000
    f0 = 160 * 2 ** (0.4 * np.sin(2 * np.pi * 0.7 * seconds))
    phase = 2 * np.pi * np.cumsum(f0) / 16_000
    wave = 0.1 * sum(np.sin(h * phase) / h for h in range(1, 12))
    wave[12_000:18_000] = 0.02 * np.random.default_rng(0).standard_normal(6000)
    tracked = track_f0(wave.astype(np.float32))
    truth = np.where(
        (np.arange(201) * 160 >= 12_000) & (np.arange(201) * 160 < 18_000), 0, np.append(f0[::160], f0[-1])
    )
    inside = np.r_[3:72, 78:110, 116:198]  # the frames at the borders hear both
    assert np.array_equal(tracked[inside] > 0, truth[inside] > 0)
    voiced = inside[truth[inside] > 0]
    cents = 1200 * np.abs(np.log2(tracked[voiced] / truth[voiced]))
    assert np.median(cents) < 5
    assert cents.max() < 40


def test_tracker_hears_a_hoarse_low_voice_as_well_as_a_high_one() -> None:
    random, shares = np.random.default_rng(2), []
    for f0 in (95.0, 190.0):
        comb = np.zeros(32_000)
        comb[:: round(16_000 / f0)] = 1.0
        mouth = ([1.0], [1.0, -1.44, 0.81])  # one formant, which looks like a very high pitch
        voice, breath = lfilter(*mouth, comb), lfilter(*mouth, random.standard_normal(32_000))
        wave = 0.05 * (voice / voice.std() + 0.8 * breath / breath.std())
        tracked = track_f0(wave.astype(np.float32))
        shares.append(np.mean(np.abs(1200 * np.log2(np.maximum(tracked, 1) / f0)) < 50))
    assert min(shares) > 0.9


def test_wanted_salience_decodes_to_the_pitch_it_was_made_for() -> None:
    f0 = np.array([0.0, 50.0, 123.4, 440.0, 1100.0], np.float32)
    decoded = decode_salience(pitch.target(f0)).f0
    assert decoded[0] == 0
    assert np.abs(1200 * np.log2(decoded[1:] / f0[1:])).max() < 3


def test_threshold_of_rvc_is_the_chance_that_the_recipe_wants() -> None:
    assert expit(logit(VOICING_THRESHOLD) - pitch.voicing_offset()) == pytest.approx(pitch.VOICED_FROM, rel=1e-6)


def test_tones_have_the_pitch_they_say() -> None:
    for seed in range(5):
        wave, f0 = pitch.tone(128, np.random.default_rng(seed))
        in_range = (f0 > 80) & (f0 < 450)
        tracked = track_f0(wave)[:128]
        both = in_range & (tracked > 0)
        if both.sum() > 20:
            assert np.median(1200 * np.abs(np.log2(tracked[both] / f0[both]))) < 15


def test_logits_for_batches_are_what_the_engine_computes() -> None:
    network = Rmvpe(TINY.rmvpe).eval()
    mel = torch.randn(2, 32, 128)
    with torch.inference_mode():
        logits = pitch.salience_logits(network, mel)
        for row in range(2):
            torch.testing.assert_close(torch.sigmoid(logits[row]), network(mel[row]), rtol=0, atol=1e-5)


def test_layers_for_batches_are_what_the_engine_computes() -> None:
    network = Hubert(TINY.hubert).eval()
    waves = torch.randn(2, 8000)
    with torch.inference_mode():
        depths = content.layers(network, waves)
        for row in range(2):
            expected = network(waves[row], layer=12, project=False)
            torch.testing.assert_close(depths[12][row : row + 1], expected, rtol=0, atol=1e-5)


def test_synthesiser_for_batches_is_what_the_engine_computes() -> None:
    torch.manual_seed(0)
    network = synthesis.new_synthesizer(synthesizer_config(TINY, 2)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    content_in, coarse = torch.randn(2, 30, TINY.hubert.hidden), torch.randint(1, 255, (2, 30))
    source, noise = 0.1 * torch.randn(2, 4800), torch.randn(2, TINY.voice.inter, 30)
    with torch.inference_mode():
        z = synthesis.latent(network, content_in, coarse, torch.tensor([0, 1]), noise)
        made = synthesis.generate(network.dec, z, source, network.emb_g(torch.tensor([0, 1]))[:, :, None])
        for row in range(2):
            mean, log_std = network.prior(content_in[row], coarse[row], 30)
            sample = mean + torch.exp(log_std) * noise[row] * 0.66666
            expected = network.reverse_flow(sample, row, 30)
            torch.testing.assert_close(z[row : row + 1], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(made[row], network.generate(expected, source[row], row), rtol=1e-3, atol=1e-5)


def test_moments_are_those_of_the_same_part_of_the_same_phone() -> None:
    one, other = utterance([0, 1, 2], [0.2, 0.6, 1.0]), utterance([0, 1, 2], [0.4, 0.5, 1.0])
    assert one.moments_in(other, np.array([0.1, 0.4, 0.7])) == pytest.approx([0.2, 0.45, 0.625])


def test_warped_content_follows_the_phones() -> None:
    target, other = utterance([0, 1, 2], [0.2, 0.6, 1.0]), utterance([0, 1, 2], [0.4, 0.5, 1.0])
    says = other.spoken.phones[other.phone_at(content.frame_times(50))[0]].astype(np.float16)[:, None]
    moved = warped(target, other, says, 49)
    truth = target.spoken.phones[target.phone_at(content.frame_times(49))[0]]
    assert np.mean(np.round(moved[:, 0]) == truth) > 0.9


def harmonics(f0: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Return a wave with a fundamental that begins anywhere, and eleven overtones, for f0 [N] in Hz at 16 kHz."""
    phase = 2 * np.pi * (np.cumsum(f0) / 16_000 + random.random())
    wave: NDArray[np.float32] = sum(0.1 * np.sin(h * phase + h) / h for h in range(1, 13)).astype(np.float32)
    return wave


def lag_spread(source: NDArray[np.float32], wave: NDArray[np.float32], f0: NDArray[np.float64]) -> float:
    """Return by how much the phase between source and fundamental varies over time, as one minus its resultant."""
    turning = np.exp(-2j * np.pi * np.cumsum(f0) / 16_000)
    window = np.hanning(480)
    a, b = (np.convolve(x * turning, window, "same")[2000:-2000] for x in (source, wave))
    lag = a / np.abs(a) * np.conj(b / np.abs(b))
    return float(1 - np.abs(lag.mean()))


def test_the_source_of_training_keeps_step_with_the_speech() -> None:
    random = np.random.default_rng(0)
    f0 = 120 * 2 ** (0.1 * np.sin(2 * np.pi * 1.5 * np.arange(32_000) / 16_000))
    wave, noise = harmonics(f0, random), random.standard_normal(32_000).astype(np.float32)
    tracked = PitchTrack((f0[80::160] * 1.003).astype(np.float32))  # five cents off, as a tracker may be
    tracked.f0[:10] = 0
    aligned = alignment.aligned_source(tracked, wave, noise)
    theirs = HarmonicPhase.of(tracked, 16_000, 160).source(0, 200, noise)
    assert lag_spread(aligned, wave, f0) < 0.02 < 0.3 < lag_spread(theirs, wave, f0)
    assert aligned[1600:].std() == pytest.approx(theirs[1600:].std(), rel=0.02)
    np.testing.assert_allclose(aligned[:1600], theirs[:1600], atol=1e-7)
    silent = PitchTrack(np.zeros(200, np.float32))
    np.testing.assert_allclose(
        alignment.aligned_source(silent, wave, noise),
        HarmonicPhase.of(silent, 16_000, 160).source(0, 200, noise),
        atol=1e-7,
    )


def test_part_of_a_batch_holds_the_same_frames_of_everything() -> None:
    frames, samples = torch.arange(9.0)[None], torch.arange(9 * 160.0)[None]
    one = torch.zeros(1)
    part = crops.Batch(frames[..., None], frames, frames, frames[:, None], samples, samples, one, one).part(3, 5)
    for cut in (part.content[..., 0], part.coarse, part.f0, part.envelope[:, 0]):
        assert cut.tolist() == [[3.0, 4.0]]
    for cut in (part.wave, part.source):
        assert torch.equal(cut[0], torch.arange(480.0, 800.0))


def test_index_holds_what_lies_in_the_middle_and_searches_all_of_it(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    centres = random.standard_normal((90, 6)).astype(np.float32) * 4
    spoken = centres[random.integers(90, size=3000)] + 0.2 * random.standard_normal((3000, 6))
    said, other = utterance([0], [1.0]), replace(utterance([0], [1.0]), style=Style(1.2))
    heard = [content.astype(np.float16) for content in (spoken, spoken + 99)]
    index = FeatureIndex(path := export.write_index("slt", [said, other], heard, 90, 1, tmp_path))
    assert index.count == 90
    lists = faiss.extract_index_ivf(faiss.read_index(str(path)))
    assert lists.nprobe == lists.nlist > 1
    query = centres + 0.2 * random.standard_normal(centres.shape).astype(np.float32)
    found = index.blend(ContentFeatures(query), 1.0).data
    far = [float(np.median(np.linalg.norm(x - centres, axis=1))) for x in (found, query)]
    assert far[0] < 0.2 < far[1]  # the median, as k-means leaves some clusters out


def test_phase_loss_hears_where_pulses_lie_and_magnitudes_do_not() -> None:
    f0 = np.full(8000, 110.0)
    waves = [torch.from_numpy(harmonics(f0, np.random.default_rng(seed)))[None] for seed in (1, 2)]
    sine = 0.1 * torch.sin(torch.arange(8000) * 0.05)[None]
    assert losses.phase_loss(waves[0], waves[0], sine) < 0.1
    assert losses.phase_loss(waves[0], waves[1], sine) > 0.5
    assert losses.phase_loss(waves[0], waves[1], sine / 3) == 0  # without its sine a source says nothing of phases
    assert torch.mean(torch.abs(losses.log_mel(waves[0]) - losses.log_mel(waves[1]))) < 0.05


def test_grid_loss_hears_a_faint_hum_at_the_rate_of_the_frames() -> None:
    noise = [0.01 * torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 8000))) for seed in range(3)]
    hum = 0.6 * noise[2][:, :160].repeat(1, 50)
    level = (noise[1].square().mean() / (noise[1] + hum).square().mean()).sqrt()
    plain, humming = (losses.grid_loss(made, noise[0]) for made in (noise[1], level * (noise[1] + hum)))
    assert losses.grid_loss(noise[0], noise[0]) == 0
    assert humming > 3 * plain
    assert losses.grid_loss(torch.zeros(1, 8000), torch.zeros(1, 8000)) == 0  # and no NaN


def test_pause_loss_hears_what_rings_in_a_pause_only() -> None:
    random = np.random.default_rng(4)
    wanted, other = (3e-4 * random.standard_normal((1, 16_000)).astype(np.float32) for _ in range(2))
    hum = np.tile(2e-4 * random.standard_normal(160).astype(np.float32), 100)[None]
    is_speech = np.arange(16_000) >= 8000
    for wave in (wanted, other):
        wave[:, is_speech] *= 1000
    quiet, loud = other + np.where(is_speech, 0, hum), other + np.where(is_speech, 1000 * hum, 0)
    plain, ringing, voiced, empty = (
        losses.pause_loss(torch.from_numpy(made.astype(np.float32)), torch.from_numpy(wanted)).item()
        for made in (other, quiet, loud, np.where(is_speech, other, 0))
    )
    assert plain < 0.5
    assert ringing > plain + 0.4
    assert voiced == pytest.approx(plain, abs=0.05)
    assert empty > 2
    noise = torch.from_numpy(0.1 * random.standard_normal((1, 8000)).astype(np.float32))
    assert losses.pause_loss(0 * noise, noise) == 0  # there is no pause


def test_period_loss_hears_hoarseness_and_not_phases() -> None:
    f0 = np.full(8000, 160.0)
    clear, other = (torch.from_numpy(harmonics(f0, np.random.default_rng(seed)))[None] for seed in (1, 2))
    breath = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 8000)).astype(np.float32))
    hoarse = clear + 0.2 * clear.std() * breath
    track = torch.full((1, 50), 160.0)
    assert losses.period_loss(other, clear, track) < 0.05
    assert losses.period_loss(hoarse, clear, track) > 0.3
    track[:, 25:] = 0
    half = torch.cat([clear[:, :4000], breath[:, 4000:]], dim=1)
    assert losses.period_loss(half, clear, track) < 0.05  # without voice there is no period
    assert losses.period_loss(hoarse, clear, torch.zeros(1, 50)) == 0


def test_envelope_is_the_same_at_every_pitch() -> None:
    envelope, mel = [], []
    for f0 in (140.0, 200.0):
        comb = np.zeros(8000, np.float32)
        comb[:: round(16_000 / f0)] = 16_000 / f0 / 100  # pulses: every harmonic, all of one size
        wave = torch.from_numpy(comb)[None]
        envelope.append(losses.log_envelope(wave, torch.tensor([round(2 * 16_000 / f0)])).mean(-1))
        mel.append(losses.log_mel(wave).mean(-1))
    apart = [(a - b - (a - b).mean()).abs().mean() for a, b in (envelope, mel)]
    assert apart[0] < 0.1 < 0.25 < apart[1]


def test_envelope_loss_minds_a_blur_more_than_a_shift_of_level() -> None:
    sharp = torch.zeros(1, 80, 40)
    sharp[..., 18:22] = 1.0
    blurred = torch.nn.functional.avg_pool1d(sharp, 5, 1, 2, count_include_pad=False)
    level = sharp + (blurred - sharp).abs().mean()
    assert losses.envelope_loss(sharp, sharp) == 0
    assert losses.envelope_loss(blurred, sharp) > 1.5 * losses.envelope_loss(level, sharp)


def test_hearing_tells_what_is_said_and_teaches_the_wave_alone() -> None:
    network = Hubert(TINY.hubert)
    hear = Hearing(network)
    wave = torch.randn(2, 8000) * 0.1
    assert hear(wave, wave) == 0
    near, far = wave + 0.01 * torch.randn(2, 8000), torch.randn(2, 8000) * 0.1
    near.requires_grad_(True)
    assert 0 < hear(near, wave) < hear(far, wave)
    hear(near, wave).backward()
    assert near.grad is not None
    assert near.grad.abs().max() > 0
    assert all(p.grad is None for p in network.parameters())


class Walk(torch.nn.Module):
    """Something to train: a number that every step moves by a random amount."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def step(self, number: int, random: np.random.Generator) -> dict[str, float]:
        self.place += number + float(random.random()) + torch.rand(1)
        return {"place": self.place.item()}


def test_the_latent_learns_slower_than_the_generator() -> None:
    trainer = new_trainer(TINY)
    optimiser = torch.optim.SGD(trainer.parameter_groups(), lr=1.0)
    loop.set_rate(optimiser, 0.4)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rates.keys() == {id(p) for p in trainer.parameters()}
    generator = {id(p) for p in trainer.network.dec.parameters()}
    assert all(rate == pytest.approx(0.4 if key in generator else 0.04) for key, rate in rates.items())


def test_interrupted_stage_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, parts = Walk(), Walk()
    loop.run_stage(loop.Stage("whole", tmp_path, 6, seed=1), {"walk": whole}, whole.step)
    calls = 0

    def breaking(number: int, random: np.random.Generator) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return parts.step(number, random)

    stage = loop.Stage("parts", tmp_path, 6, seed=1, save_every_s=0)
    with pytest.raises(KeyboardInterrupt):
        loop.run_stage(stage, {"walk": parts}, breaking)
    assert not stage.is_done
    parts = Walk()
    loop.run_stage(stage, {"walk": parts}, parts.step)
    assert stage.is_done
    assert parts.place.item() == whole.place.item()
    again = Walk()
    loop.run_stage(stage, {"walk": again}, lambda *_: pytest.fail("a finished stage ran again"))
    assert again.place.item() == whole.place.item()


def test_stage_waits_while_the_pause_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PAUSE").touch()
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            (tmp_path / "PAUSE").unlink()

    monkeypatch.setattr(loop.time, "sleep", sleep)
    walk = Walk()
    loop.run_stage(loop.Stage("walk", tmp_path, 2, seed=1), {"walk": walk}, walk.step)
    assert len(slept) == 3


def test_stage_stops_at_a_loss_that_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="walk: losses at step 0"):
        loop.run_stage(loop.Stage("walk", tmp_path, 2, seed=1), {}, lambda *_: {"loss": float("nan")})
    assert not (tmp_path / "walk.pt").exists()

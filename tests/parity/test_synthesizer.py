"""The synthesiser equals the original's, stage by stage, in both backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.excitation import HarmonicPhase, sample_prior
from rvc_batch.engine.network_config import PRIOR_NOISE_SCALE
from rvc_batch.engine.types import F32, I64, PitchTrack, SynthesisInputs
from tests.conftest import OpenBackend, OpenVoice
from tests.parity import golden

NAMES = golden.entries("synth_")
WITH_F0 = [e for e in NAMES if "nof0" not in str(e)]


@dataclass(frozen=True)
class Case:
    """One entry: the backend with its voice current, and what goes in."""

    backend: Backend
    x: SynthesisInputs
    prior_noise: F32
    z: F32  # the decoder's own input


@pytest.fixture
def case(open_networks: OpenBackend, open_voice: OpenVoice, framework: str, name: str) -> Case:
    entry = golden.ENTRIES[name]
    size, inputs = entry["network_size"], entry["inputs"]
    (checkpoint,) = entry["checkpoints"]
    voice = open_voice(size, checkpoint.removeprefix("voices/").removesuffix(".pth"))
    backend = open_networks(framework, size)
    backend.load_voice(voice)
    content = golden.evaluated(inputs["phone"])
    coarse: I64 = np.zeros(0, np.int64)
    source: F32 = np.zeros(0, np.float32)
    if voice.config.has_f0:
        track, hop = PitchTrack(golden.evaluated(inputs["pitchf"])), voice.config.hop_samples
        coarse = track.coarse()
        silence = np.zeros(track.frames * hop, np.float32)
        source = HarmonicPhase.of(track, voice.sample_rate, hop).source(0, track.frames, silence)
    x = SynthesisInputs(content, coarse, source, inputs["sid"], inputs["length"])
    noise, z = (np.ascontiguousarray(golden.evaluated(inputs[k])[0].T) for k in ("z_noise", "dec_input"))
    return Case(backend, x, noise, z)


@pytest.mark.parametrize("name", NAMES)
def test_prior_equals_the_original(case: Case, name: str) -> None:
    mean, logs = case.backend.encode_prior(case.x)
    golden.assert_golden(name, "m", mean.T)
    golden.assert_golden(name, "logs", logs.T)
    golden.assert_golden(name, "mask", case.x.mask())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("z_name", "audio_name", "loudness"), [("z", "audio", 0.0), ("z_noise", "audio_noise", 1.0)])
def test_flow_and_audio_equal_the_original(
    case: Case, name: str, z_name: str, audio_name: str, loudness: float
) -> None:
    mean, logs = case.backend.encode_prior(case.x)
    latent = sample_prior(mean, logs, case.prior_noise, PRIOR_NOISE_SCALE * loudness, case.x.mask())
    z = case.backend.reverse_flow(latent, case.x)
    golden.assert_golden(name, z_name, z.T)
    golden.assert_golden(name, audio_name, case.backend.decode(latent, case.x))
    golden.assert_golden(name, audio_name, case.backend.generate(z * case.x.mask()[:, None], case.x))


@pytest.mark.parametrize("name", NAMES)
def test_generator_alone_equals_the_original(case: Case, name: str) -> None:
    golden.assert_golden(name, "dec", case.backend.generate(case.z, case.x))


@pytest.mark.parametrize("name", WITH_F0)
def test_excitation_equals_the_original(case: Case, name: str) -> None:
    golden.assert_golden(name, "source", case.backend.excitation(case.x))


@pytest.mark.parametrize("name", ["synth_tiny_v2_40k_f0_masked"])
def test_what_lies_behind_the_mask_does_not_matter(case: Case, name: str) -> None:
    content = case.x.content.copy()
    content[case.x.valid :] = 7.0
    other = SynthesisInputs(content, case.x.coarse, case.x.source, case.x.speaker, case.x.valid)
    for ours, theirs in zip(case.backend.encode_prior(case.x), case.backend.encode_prior(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert not ours[case.x.valid :].any()
    latent = case.prior_noise.copy()
    z = case.backend.reverse_flow(latent, case.x)
    latent[case.x.valid :] = 7.0
    np.testing.assert_array_equal(case.backend.reverse_flow(latent, case.x), z)


@pytest.mark.parametrize("name", ["synth_tiny_v1_40k_nof0"])
def test_voice_without_f0_has_no_excitation(case: Case, name: str) -> None:
    with pytest.raises(ValueError, match="no f0"):
        case.backend.excitation(case.x)

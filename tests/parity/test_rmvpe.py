"""The pitch network equals the original's, stage by stage, in both backends."""

from __future__ import annotations

import numpy as np
import pytest

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.dialect import MelPadding
from tests.conftest import OpenBackend
from tests.parity import golden

NAMES = [e for e in golden.entries("rmvpe_") if e != "rmvpe_decode"]


def opened(open_networks: OpenBackend, framework: str, name: str) -> tuple[Backend, MelPadding]:
    entry = golden.ENTRIES[name]
    padding = MelPadding(entry["params"]["mel_padding_to_multiple_of_32"])
    return open_networks(framework, entry["network_size"]), padding


@pytest.mark.parametrize("name", NAMES)
def test_salience_equals_the_original(open_networks: OpenBackend, framework: str, name: str) -> None:
    backend, padding = opened(open_networks, framework, name)
    wave = golden.audio(golden.ENTRIES[name])
    golden.assert_golden(name, "hidden", backend.pitch_salience(wave, padding=padding))


@pytest.mark.parametrize("stage", ["bottom", "unet", "cnn", "gru"])
@pytest.mark.parametrize("name", ["rmvpe_tiny_speech_slt", "rmvpe_tiny_glissando"])
def test_stages_equal_the_original(open_networks: OpenBackend, framework: str, name: str, stage: str) -> None:
    backend, padding = opened(open_networks, framework, name)
    got = backend.pitch_stages(golden.audio(golden.ENTRIES[name]), padding=padding)[stage]
    golden.assert_golden(name, stage, got if got.ndim == 2 else np.moveaxis(got, -1, 0))


def test_paddings_differ(open_networks: OpenBackend, framework: str) -> None:
    backend = open_networks(framework, "tiny")
    wave = golden.audio(golden.ENTRIES["rmvpe_tiny_speech_slt"])[:50_000]
    zeros, reflected = (backend.pitch_salience(wave, padding=p) for p in (MelPadding.ZEROS, MelPadding.REFLECT))
    assert zeros.shape == reflected.shape == (1 + 50_000 // 160, 360)
    assert np.abs(zeros - reflected)[-10:].max() > 1e-3

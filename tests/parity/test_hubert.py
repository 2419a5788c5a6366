"""The content network equals the original's, layer by layer, in both backends."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import OpenBackend
from tests.parity import golden


@pytest.mark.parametrize(("output", "layer", "project"), [("v2", 12, False), ("v1", 9, True)])
@pytest.mark.parametrize("name", golden.entries("hubert_"))
def test_features_equal_the_original(
    open_networks: OpenBackend, framework: str, name: str, output: str, layer: int, project: bool
) -> None:
    entry = golden.ENTRIES[name]
    backend = open_networks(framework, entry["network_size"])
    golden.assert_golden(name, output, backend.content(golden.audio(entry), layer=layer, project=project))


@pytest.mark.parametrize("stage", ["conv", "layer0", "layer1", "layer6", "layer9"])
def test_stages_equal_the_original(open_networks: OpenBackend, framework: str, stage: str) -> None:
    name = "hubert_tiny_speech_slt"
    got = open_networks(framework, "tiny").content_stages(golden.audio(golden.ENTRIES[name]))[stage]
    golden.assert_golden(name, stage, got.T if stage == "conv" else got)


def test_stages_end_in_the_features(open_networks: OpenBackend, framework: str) -> None:
    backend = open_networks(framework, "tiny")
    wave = golden.audio(golden.ENTRIES["hubert_tiny_human_alsa_16237"])
    stages = backend.content_stages(wave)
    for layer in (9, 12):
        np.testing.assert_array_equal(stages[f"layer{layer}"], backend.content(wave, layer=layer, project=False))
        np.testing.assert_array_equal(stages[f"final_proj{layer}"], backend.content(wave, layer=layer, project=True))


@pytest.mark.parametrize("samples", [0, 399])
def test_wave_too_short_for_a_frame_is_refused(open_networks: OpenBackend, framework: str, samples: int) -> None:
    backend = open_networks(framework, "tiny")
    for ask in (lambda w: backend.content(w, layer=12, project=False), backend.content_stages):
        with pytest.raises(ValueError, match=f"{samples} samples"):
            ask(np.zeros(samples, np.float32))


def test_shortest_wave_gives_one_frame(open_networks: OpenBackend, framework: str) -> None:
    wave = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    assert open_networks(framework, "tiny").content(wave, layer=12, project=False).shape == (1, 48)


@pytest.mark.parametrize("layer", [0, 13])
def test_layer_that_does_not_exist_is_refused(open_networks: OpenBackend, framework: str, layer: int) -> None:
    with pytest.raises(ValueError, match=f"layer is {layer}"):
        open_networks(framework, "tiny").content(np.zeros(16_000, np.float32), layer=layer, project=False)

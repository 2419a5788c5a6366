"""Content networks by name: a voice gets the one it was trained with, or says which is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from rvc_batch.config import Settings, WorkerSettings
from rvc_batch.engine.decoding import open_audio
from rvc_batch.engine.provenance import Provenance
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import ModelMissing, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.importers.embedders import CONTENTVEC, embedder_of
from rvc_batch.jobs.renderer import EngineRenderer
from tests.engine_fakes import fake_voice

FIXED = ConversionSettings(index_rate=0.0)


@pytest.mark.parametrize(
    ("stated", "setting", "expected"),
    [
        (None, "auto", CONTENTVEC),
        ("contentvec", "auto", CONTENTVEC),
        ("Hubert_Base", "auto", CONTENTVEC),
        ("spin-v2", "auto", "spin-v2"),
        ("spin", "contentvec", CONTENTVEC),
        (None, "korean-hubert-base", "korean-hubert-base"),
        ("spin", "mine", "mine"),
    ],
)
def test_the_settings_come_first_then_the_voice(stated: str | None, setting: str, expected: str) -> None:
    voice = replace(fake_voice(), embedder=stated)
    assert embedder_of(voice, FIXED.with_changes(embedder=setting)) == expected


@pytest.mark.parametrize("name", ["../secret", "/etc", ".hidden", "a/b", "a\\b", "", "x" * 65, "a\n"])
def test_a_name_never_leaves_the_folder(name: str) -> None:
    with pytest.raises(ModelMissing, match="no name of a folder"):
        embedder_of(replace(fake_voice(), embedder=name), FIXED)
    with pytest.raises(SettingsInvalid, match="embedder"):
        FIXED.with_changes(embedder=name)


@pytest.fixture
def home(tmp_path: Path, checkpoints: Callable[[str], Path]) -> Home:
    """Return a home with a voice of ContentVec and one of spin, which is not installed."""
    home, tiny = Home(tmp_path / "home"), checkpoints("tiny")
    home.create()
    for name in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(tiny / name, home.models)
    file = torch.load(tiny / "voices" / "v2_40k_f0_feat48.pth", weights_only=True)
    torch.save(file, home.voices / "anna.pth")
    torch.save(file | {"embedder_model": "spin"}, home.voices / "spinner.pth")
    sf.write(tmp_path / "in.wav", 0.1 * np.sin(np.arange(16_000) / 9), 16_000)
    return home


def install(home: Home, contentvec: Path, name: str) -> None:
    """Put a folder of another content network into the home: ContentVec with one matrix changed."""
    folder = home.models / "embedders" / name
    shutil.copytree(contentvec, folder)
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    state = torch.load(weights, weights_only=True)
    torch.save({k: v * 1.5 if "output_dense.weight" in k else v for k, v in state.items()}, weights)


def render(renderer: EngineRenderer, home: Home, voice: str, **changes: str) -> tuple[bytes, Provenance]:
    source, target = home.root.parent / "in.wav", home.root.parent / "out.wav"
    settings = FIXED.with_changes(**changes)
    renderer.render(source, target, voice=voice, settings=settings, progress=lambda _: None)
    with open_audio(target) as opened:
        made = Provenance.read(opened.comment, "out.wav")
        audio = np.concatenate(list(opened.blocks()))
    return audio.tobytes(), made


@pytest.fixture
def contentvec(checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints("tiny") / "contentvec"


def test_each_voice_gets_its_own_network_and_a_missing_one_is_named(home: Home, contentvec: Path) -> None:
    renderer = EngineRenderer(home, Settings(worker=WorkerSettings(backend="torch")))
    with pytest.raises(ModelMissing, match=r"content network spin is missing: .*config\.json.*embedders"):
        render(renderer, home, "spinner")
    anna, of_anna = render(renderer, home, "anna")
    assert render(renderer, home, "spinner", embedder="contentvec")[0] == anna  # the voices are equal
    install(home, contentvec, "spin")
    spun, of_spinner = render(renderer, home, "spinner")
    assert spun != anna
    assert of_spinner.networks_sha256 != of_anna.networks_sha256
    assert render(renderer, home, "anna", embedder="spin")[0] == spun
    assert render(renderer, home, "anna")[0] == anna


def test_the_warm_up_asks_for_the_network_that_the_box_is_set_to(home: Home) -> None:
    (home.voices / "anna.pth").unlink()
    settings = Settings(worker=WorkerSettings(backend="torch"), conversion={"embedder": "contentvec"})
    renderer = EngineRenderer(home, settings)
    renderer.warm_up()
    assert renderer.warm_voices() == ("spinner",)


@pytest.mark.parametrize(("limit", "kept"), [("", 2), ("8 GB", 1)])
def test_few_networks_stay_loaded(home: Home, contentvec: Path, limit: str, kept: int) -> None:
    for name in ("spin", "other"):
        install(home, contentvec, name)
    renderer = EngineRenderer(home, Settings(worker=WorkerSettings(backend="torch", memory_limit=limit)))
    for embedder in ("spin", "auto", "other"):
        render(renderer, home, "anna", embedder=embedder)
    assert list(renderer._converters)[-1] == "other"
    assert len(renderer._converters) == kept
    assert renderer.warm_voices() == ("anna",)

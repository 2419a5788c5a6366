"""Blending: what is mixed, what the parents must have in common, and that the result is a voice like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.checkpoints import NetworkKind, read_header, read_tensors
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import (
    HomeInvalid,
    IndexInvalid,
    ModelCorrupt,
    ModelKeys,
    ModelNotRvc,
    RvcBatchError,
    SettingsInvalid,
)
from rvc_batch.importers.blend import blend
from rvc_batch.importers.identify import read_network
from rvc_batch.importers.mixing import mixed_voice
from rvc_batch.importers.store import ModelStore

A, B = "v2_40k_f0", "applio_v2_40k"  # one architecture; the second spells weight norm in the new way
INDEX_48 = "index/added_IVF30_Flat_nprobe_1_golden_v2.index"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def parents(tmp_path: Path, checkpoints: Callable[[str], Path]) -> tuple[Path, Path]:
    for name, source in (("a", A), ("b", B)):
        shutil.copyfile(checkpoints("tiny") / "voices" / f"{source}.pth", tmp_path / f"{name}.pth")
    return tmp_path / "a.pth", tmp_path / "b.pth"


def changed(path: Path, change: Change) -> Path:
    file = torch.load(path, weights_only=True)
    change(file)
    torch.save(file, path)
    return path


def upstream(one: Path, other: Path, weight: float, target: Path) -> Path:
    """Merge as upstream does, but without rounding to half precision."""
    first, second = torch.load(one, weights_only=True), torch.load(other, weights_only=True)
    mixed = {}
    for key, a in first["weight"].items():
        b = second["weight"][
            key.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            )
        ]
        rows = min(len(a), len(b)) if key == "emb_g.weight" else None
        mixed[key] = weight * a[:rows].float() + (1 - weight) * b[:rows].float()
    torch.save(first | {"weight": mixed}, target)
    return target


@pytest.mark.parametrize("weight", [0.3, 0.5])
def test_blend_is_what_upstream_merges(parents: tuple[Path, Path], tmp_path: Path, weight: float) -> None:
    def fewer_speakers(file: dict[str, Any]) -> None:
        file["weight"]["emb_g.weight"] = file["weight"]["emb_g.weight"][:5]

    changed(parents[1], fewer_speakers)
    wanted = read_network(upstream(*parents, weight, tmp_path / "merged.pth"))
    found = mixed_voice(*parents, weight)
    assert found.config == wanted.config
    assert found.tensors["emb_g.weight"].shape[0] == 5
    assert found.tensors.keys() == wanted.tensors.keys()
    for key, tensor in wanted.tensors.items():
        np.testing.assert_array_equal(found.tensors[key], tensor, err_msg=key)


@pytest.mark.parametrize(("weight", "parent"), [(1.0, 0), (0.0, 1)])
def test_ends_are_the_parents(parents: tuple[Path, Path], weight: float, parent: int) -> None:
    found, wanted = mixed_voice(*parents, weight), read_network(parents[parent])
    for key, tensor in wanted.tensors.items():
        np.testing.assert_array_equal(found.tensors[key], tensor, err_msg=key)


def folded(file: dict[str, Any]) -> None:
    for key in [k for k in file["weight"] if k.endswith("original0")]:
        stem = key.removesuffix("parametrizations.weight.original0")
        gain, direction = file["weight"].pop(key), file["weight"].pop(stem + "parametrizations.weight.original1")
        file["weight"][stem + "weight"] = (
            gain * direction / torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
        )


def test_folded_weight_is_split_as_torch_splits_it(parents: tuple[Path, Path]) -> None:
    changed(parents[1], folded)
    folded_parent = read_network(parents[1])
    for weight, parent in ((0.0, folded_parent), (1.0, read_network(parents[0]))):
        found = mixed_voice(*parents, weight)
        for key, tensor in parent.tensors.items():
            np.testing.assert_array_equal(found.tensors[key], tensor, err_msg=key)


@pytest.mark.parametrize(
    ("other", "change", "said"),
    [
        ("v2_48k_f0", None, "differ in sample rate (40000 Hz and 48000 Hz)"),
        ("v2_40k_nof0", None, "differ in use of f0 (with f0 and without f0)"),
        ("v1_40k_f0", None, "differ in version (v2 and v1)"),
        ("v2_40k_f0_feat48", None, "differ in feature_dim (768 and 48)"),
        (B, lambda f: f.update(embedder_model="spin"), "differ in embedder (contentvec and spin)"),
    ],
)
def test_voices_of_two_architectures_are_refused_in_a_sentence(
    parents: tuple[Path, Path], checkpoints: Callable[[str], Path], other: str, change: Change | None, said: str
) -> None:
    shutil.copyfile(checkpoints("tiny") / "voices" / f"{other}.pth", parents[1])
    if change is not None:
        changed(parents[1], change)
    with pytest.raises(ModelNotRvc) as caught:
        mixed_voice(*parents, 0.5)
    assert said in str(caught.value)
    assert str(caught.value).startswith("a.pth and b.pth cannot be blended: they ")


def test_parents_are_read_strictly(parents: tuple[Path, Path]) -> None:
    changed(parents[1], lambda file: file["weight"].pop("dec.conv_post.weight"))
    with pytest.raises(ModelKeys, match=r"b\.pth: tensors 1 missing \(dec\.conv_post\.weight\)"):
        mixed_voice(*parents, 0.5)


# in the library


@pytest.fixture
def store(tmp_path: Path, checkpoints: Callable[[str], Path]) -> ModelStore:
    generated, voices = checkpoints("tiny"), tmp_path / "voices"
    voices.mkdir()
    for name, source in (("amy", "v2_40k_f0_feat48"), ("bob", "v2_40k_f0_feat48"), ("cy", "v1_40k_f0")):
        shutil.copyfile(generated / "voices" / f"{source}.pth", voices / f"{name}.pth")

    def louder(file: dict[str, Any]) -> None:
        file["weight"] = {key: value * 1.5 for key, value in file["weight"].items()}

    changed(voices / "bob.pth", louder)
    return ModelStore(models=tmp_path, voices=voices, cache=tmp_path / "cache")


def test_blend_is_a_voice_of_the_home_that_can_be_blended_again(store: ModelStore) -> None:
    made = blend(store, "amy", "bob", weight=0.25, name="Eve")
    assert made.placed == store.voices / "Eve.safetensors"
    eve = store.voice("Eve")
    amy, bob = (read_tensors(store.voice(name).checkpoint)["emb_g.weight"] for name in ("amy", "bob"))
    np.testing.assert_array_equal(
        read_tensors(eve.checkpoint)["emb_g.weight"], np.float32(0.25) * amy + np.float32(0.75) * bob
    )
    header = read_header(eve.checkpoint, NetworkKind.SYNTHESIZER)
    assert header.extra["blend"] == "0.25 of amy.pth, 0.75 of bob.pth"
    again = blend(store, "Eve", "amy", weight=1.0, name="Same")
    assert again.voice is not None
    same, before = read_tensors(again.voice.checkpoint), read_tensors(eve.checkpoint)
    for key, tensor in before.items():
        np.testing.assert_array_equal(same[key], tensor, err_msg=key)
    assert [f.name for f in sorted(store.voices.iterdir())] == [
        "Eve.safetensors", "Same.safetensors", "amy.pth", "bob.pth", "cy.pth",
    ]  # fmt: skip
    assert store.check("Eve") == []


def test_index_is_that_given(store: ModelStore, checkpoints: Callable[[str], Path]) -> None:
    index = checkpoints("tiny") / INDEX_48
    assert blend(store, "amy", "bob", weight=0.5, name="without").voice.index is None  # type: ignore[union-attr]
    made = blend(store, "amy", "bob", weight=0.5, name="with", index=index)
    assert made.voice is not None
    assert made.voice.index == store.voices / "with.index"
    assert made.voice.index.read_bytes() == index.read_bytes()
    assert not made.voice.index.is_symlink()
    with pytest.raises(IndexInvalid, match="cannot be read"):
        blend(store, "amy", "bob", weight=0.5, name="none", index=index.with_name("none"))


@pytest.mark.parametrize(
    ("other", "weight", "name", "error", "said"),
    [
        ("bob", 1.5, "new", SettingsInvalid, "weight is 1.5, expected 0 to 1"),
        ("bob", float("nan"), "new", SettingsInvalid, "weight is nan"),
        ("bob", 0.5, "../new", SettingsInvalid, "cannot be the name"),
        ("bob", 0.5, "bob", HomeInvalid, "has a voice 'bob' already"),
        ("cy", 0.5, "new", ModelNotRvc, "amy.pth and cy.pth cannot be blended: they differ in version (v2 and v1)"),
    ],
)
def test_what_cannot_be_blended_leaves_nothing(
    store: ModelStore, other: str, weight: float, name: str, error: type[RvcBatchError], said: str
) -> None:
    before = sorted(store.voices.iterdir())
    with pytest.raises(error) as caught:
        blend(store, "amy", other, weight=weight, name=name)
    assert said in str(caught.value)
    assert sorted(store.voices.iterdir()) == before
    assert not list(store.cache_folder.glob("*.part"))


def test_other_and_damaged_safetensors_are_no_voices(store: ModelStore, checkpoints: Callable[[str], Path]) -> None:
    path = store.voices / "eve.safetensors"
    shutil.copyfile(checkpoints("tiny") / "contentvec" / "model.safetensors", path)
    with pytest.raises(ModelNotRvc, match=r"eve\.safetensors was not written by rvc-batch"):
        store.voice("eve")
    shutil.copyfile(store.voice("amy").checkpoint, path)
    assert store.voice("eve").sample_rate == 40_000  # a canonical checkpoint of another home
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelCorrupt, match=r"eve\.safetensors is damaged"):
        store.voice("eve")


def test_blend_is_rendered(
    store: ModelStore, tmp_path: Path, framework: str, open_networks: Callable[[str, str], Backend]
) -> None:
    wave = np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32) * 0.3
    sf.write(tmp_path / "in.wav", wave, 16_000)
    blend(store, "amy", "bob", weight=0.5, name="eve")
    heard = {}
    for name in ("amy", "eve"):
        Converter(open_networks(framework, "tiny"), scratch=tmp_path / "scratch").convert(
            tmp_path / "in.wav",
            tmp_path / f"{name}.wav",
            voice=store.voice(name),
            settings=ConversionSettings(output_format="wav32f"),
        )
        heard[name], _ = sf.read(tmp_path / f"{name}.wav", dtype="float32")
        assert np.isfinite(heard[name]).all()
    assert len(heard["eve"]) == 40_000
    assert not np.allclose(heard["eve"], heard["amy"], atol=1e-3)

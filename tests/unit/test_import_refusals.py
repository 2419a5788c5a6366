"""Files that are not a usable model: each is recognised, and the sentence says what it is and what to do."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rvc_batch.errors import ModelCorrupt, ModelError, ModelMissing, ModelNotRvc, ModelTraining
from rvc_batch.importers.identify import read_network

ZERO = torch.zeros(2, 2)
GENERATOR = OrderedDict({"enc_p.emb_phone.weight": ZERO, "emb_g.weight": ZERO})
DISCRIMINATOR = OrderedDict({"discriminators.0.convs.0.bias": ZERO})
TRAINING = {"iteration": 7, "optimizer": {"state": {0: {"exp_avg": ZERO}}, "param_groups": []}, "learning_rate": 1e-4}

REFUSED: dict[str, tuple[Any, type[ModelError], str]] = {
    "raw training file": ({"model": GENERATOR, **TRAINING}, ModelTraining, "raw training file .* export a small voice"),
    "pretrained base": (
        {"model": GENERATOR, "iteration": 1, "learning_rate": 1e-4},
        ModelTraining,
        "pretrained base.* export a small voice",
    ),
    "discriminator in training": ({"model": DISCRIMINATOR, **TRAINING}, ModelTraining, "discriminator .* take the G"),
    "discriminator": (DISCRIMINATOR, ModelTraining, "discriminator"),
    "training file of another program": (
        {"model": {"text.weight": ZERO}, **TRAINING},
        ModelTraining,
        "another program",
    ),
    "voice without config": ({"weight": GENERATOR, "f0": 1}, ModelNotRvc, "without its config; export"),
    "bare voice weights": (GENERATOR, ModelNotRvc, "without its config; export"),
    "another program's export": ({"weight": {"ssl_proj.weight": ZERO}, "config": {}}, ModelNotRvc, "ssl_proj"),
    "config of another form": (
        {"weight": GENERATOR, "config": {"a": 1}},
        ModelNotRvc,
        "config is dict, expected RVC's",
    ),
    "config too short": ({"weight": GENERATOR, "config": [1, 2]}, ModelNotRvc, "config is 2 values"),
    "RefineGAN2": (
        {"weight": GENERATOR, "config": [], "vocoder": "RefineGAN2"},
        ModelNotRvc,
        "vocoder RefineGAN2, which is not supported yet; expected HiFi-GAN or MRF HiFi-GAN or RefineGAN",
    ),
    "other tensors": ({"layer.weight": ZERO}, ModelNotRvc, "no RVC model: it has the keys layer.weight"),
    "no dict": ([1, 2, 3], ModelNotRvc, "holds a list, expected a dict"),
    "quantised weights": (
        {"feature_projection.projection.weight": ZERO},
        ModelNotRvc,
        "Hugging Face folder; import the folder",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_torch_files_that_are_no_model_are_refused(tmp_path: Path, case: str) -> None:
    content, error, sentence = REFUSED[case]
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(error, match=sentence) as caught:
        read_network(tmp_path / "file.pth")
    assert type(caught.value) is error
    assert "file.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (b"Rar!\x1a\x07", "unpack it first"),
        (b"just some text", "starts with b'just som'"),
    ],
)
def test_other_files_are_named_for_what_they_look_like(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ModelNotRvc, match=sentence):
        read_network(tmp_path / "file.pth")


def test_an_archive_with_a_voice_inside_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "voice.pth", "w") as archive:
        archive.writestr("amy/amy.pth", b"anything")
    with pytest.raises(ModelNotRvc, match="unpack it first"):
        read_network(tmp_path / "voice.pth")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("file", ["rmvpe.pt", "voices/v2_40k_f0.pth"])
def test_cut_files_are_corrupt_with_name_and_size(
    checkpoints: Callable[[str], Path], tmp_path: Path, file: str, part: float
) -> None:
    whole = (checkpoints("tiny") / file).read_bytes()
    size = int(len(whole) * part)
    (tmp_path / "cut.pth").write_bytes(whole[:size])
    with pytest.raises(ModelCorrupt) as caught:
        read_network(tmp_path / "cut.pth")
    assert f"cut.pth ({size} bytes)" in str(caught.value)


def test_a_flipped_bit_in_the_numbers_is_corrupt(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    content = bytearray((checkpoints("tiny") / "rmvpe.pt").read_bytes())
    content[len(content) // 2] ^= 1  # the checksum of the entry is wrong now
    (tmp_path / "rmvpe.pt").write_bytes(content)
    with pytest.raises(ModelCorrupt, match="CRC"):
        read_network(tmp_path / "rmvpe.pt")


def test_quantised_weights_are_refused(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    export = torch.load(checkpoints("tiny") / "voices" / "v2_40k_f0.pth", weights_only=True)
    export["weight"]["enc_p.proj.bias"] = export["weight"]["enc_p.proj.bias"].to(torch.int8)
    torch.save(export, tmp_path / "int8.pth")
    with pytest.raises(ModelNotRvc, match=r"enc_p\.proj\.bias holds int8"):
        read_network(tmp_path / "int8.pth")


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"needs config\.json and"):
        read_network(tmp_path)
    (tmp_path / "config.json").write_text("{ not json")
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ModelCorrupt, match="not JSON"):
        read_network(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors \(2 bytes\) is damaged"):
        read_network(tmp_path)
    save_file({"bert.weight": ZERO}, tmp_path / "model.safetensors")
    with pytest.raises(ModelNotRvc, match=r"not a HuBERT: it has the tensors bert\.weight"):
        read_network(tmp_path)

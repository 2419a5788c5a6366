"""Foreign checkpoints become canonical tensors: right values, right layout, nothing missing and nothing extra."""

from __future__ import annotations

import copy
import importlib
import json
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rvc_batch.engine.checkpoints import NetworkKind
from rvc_batch.engine.network_config import HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.errors import ModelCorrupt, ModelKeys, ModelNotRvc
from rvc_batch.importers.canonical import fold_weight_norm
from rvc_batch.importers.identify import read_network
from rvc_batch.importers.rules import canonical_shapes

VOICES = [
    *(
        f"{version}_{rate}_{kind}"
        for version in ("v1", "v2")
        for rate in ("32k", "40k", "48k")
        for kind in ("f0", "nof0")
    ),
    *(f"applio_v2_{rate}" for rate in ("32k", "40k", "48k")),
    *(f"v2_{rate}_f0_feat48" for rate in ("32k", "40k", "48k")),
    "v2_40k_nof0_feat48",
    "applio_v2_40k_feat48",
]

Export = dict[str, Any]


@pytest.fixture(scope="module")
def tiny(checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints("tiny")


@pytest.fixture(scope="module")
def voice_export(tiny: Path) -> Export:
    return dict(torch.load(tiny / "voices" / "v2_40k_f0_feat48.pth", weights_only=True))


@pytest.fixture
def export(voice_export: Export) -> Export:
    """A voice file as Python objects, free to alter."""
    return {
        **voice_export,
        "weight": OrderedDict(voice_export["weight"]),
        "config": copy.deepcopy(voice_export["config"]),
    }


def saved(folder: Path, content: object, name: str = "voice.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def torch_canonical(weight: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Fold with torch's own weight norm and permute by the module the key belongs to, independently of `rules`."""
    result = {}
    for key, tensor in weight.items():
        if key.endswith((".weight_g", ".original0")):
            continue
        if key.endswith((".weight_v", ".original1")):
            gain = weight[key.replace("weight_v", "weight_g").replace("original1", "original0")].float()
            axis = max(range(gain.ndim), key=lambda a: gain.shape[a])
            tensor = torch._weight_norm(tensor.float(), gain, axis)
            key = key.replace("weight_v", "weight").replace("parametrizations.weight.original1", "weight")
        values = tensor.float()
        if key.startswith("dec.ups.") and key.endswith(".weight"):
            values = values.permute(1, 2, 0)
        elif values.ndim == 3 and key.endswith(".weight"):
            values = values.permute(0, 2, 1)
        elif values.ndim == 4:
            values = values.permute((1, 2, 3, 0) if ".conv1.0." in key else (0, 2, 3, 1))
        result[key] = values.numpy()
    return result


@pytest.mark.parametrize("name", VOICES)
def test_every_voice_variant_is_imported_with_torchs_values(tiny: Path, name: str) -> None:
    source = torch.load(tiny / "voices" / f"{name}.pth", weights_only=True)
    network = read_network(tiny / "voices" / f"{name}.pth")

    assert network.kind is NetworkKind.SYNTHESIZER
    config = network.config
    assert isinstance(config, SynthesizerConfig)
    parts = name.removeprefix("applio_").split("_")
    assert config.version == parts[0]
    assert config.sample_rate == int(parts[1].removesuffix("k")) * 1000
    assert config.has_f0 == ("nof0" not in parts)
    assert config.feature_dim == (48 if "feat48" in parts else {"v1": 256, "v2": 768}[parts[0]])
    assert config.n_speakers == 109
    expected = torch_canonical(source["weight"])
    assert set(network.tensors) == set(expected)
    for key, values in network.tensors.items():
        # torch sums the norm in float32: up to about 1e-6 of the largest weight
        np.testing.assert_allclose(values, expected[key], rtol=2e-6, atol=1e-7, err_msg=key)


def test_both_hubert_sources_give_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    half = read_network(tiny / "hubert_base.pt")
    folder = read_network(tiny / "contentvec")
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_bytes((tiny / "contentvec" / name).read_bytes())
    binary = read_network(tmp_path)

    assert isinstance(half.config, HubertConfig)
    assert half.config == folder.config == binary.config
    assert (half.config.n_heads, half.config.pos_groups, half.config.ffn) == (4, 16, 96)
    assert set(half.tensors) == set(canonical_shapes(half.config))
    for other in (folder, binary):
        for key, values in half.tensors.items():
            assert values.tobytes() == other.tensors[key].tobytes(), key


def test_hubert_values_are_torchs(tiny: Path) -> None:
    source = load_file(tiny / "contentvec" / "model.safetensors")
    source.pop("masked_spec_embed")
    expected = torch_canonical(source)
    network = read_network(tiny / "contentvec")
    assert set(network.tensors) == set(expected)
    for key, values in network.tensors.items():
        np.testing.assert_allclose(values, expected[key], rtol=2e-6, atol=1e-7, err_msg=key)


def test_rmvpe_values_are_the_sources(tiny: Path) -> None:
    source = torch.load(tiny / "rmvpe.pt", weights_only=True)
    expected = torch_canonical({k: v for k, v in source.items() if not k.endswith("num_batches_tracked")})
    network = read_network(tiny / "rmvpe.pt")
    assert network.config == RmvpeConfig(
        base_channels=4, n_levels=5, n_blocks=2, n_mid_levels=2, gru_hidden=256, n_gru_layers=1, n_mels=128, n_bins=360
    )
    assert set(network.tensors) == set(expected)
    for key, values in network.tensors.items():
        assert values.tobytes() == np.ascontiguousarray(expected[key]).tobytes(), key


@pytest.mark.parametrize("file", ["hubert_base.pt", "rmvpe.pt", "voices/v1_48k_f0.pth", "voices/v2_40k_nof0.pth"])
def test_shapes_agree_with_the_table_of_rules(tiny: Path, file: str) -> None:
    network = read_network(tiny / file)
    assert {k: v.shape for k, v in network.tensors.items()} == canonical_shapes(network.config)
    assert all(v.dtype == np.float32 and v.flags.c_contiguous for v in network.tensors.values())


@pytest.mark.parametrize("backend", ["mlx", "torch"])
@pytest.mark.parametrize("file", ["hubert_base.pt", "rmvpe.pt", "voices/v1_48k_f0.pth", "voices/v2_40k_nof0.pth"])
def test_networks_have_the_parameters_of_the_table_of_rules(tiny: Path, file: str, backend: str) -> None:
    """The table is written without looking at the networks: a parameter both backends forgot shows here."""
    network = read_network(tiny / file)
    package = f"rvc_batch.engine.{backend}_nets"
    module = importlib.import_module(f"{package}.{network.kind.value}")
    built = getattr(module, network.kind.value.capitalize())(network.config)
    shapes_of = importlib.import_module(f"{package}.layers").canonical_shapes
    assert shapes_of(built) == canonical_shapes(network.config)


@pytest.mark.full
@pytest.mark.parametrize("file", ["hubert_base.pt", "contentvec", "rmvpe.pt", "voices/v2_40k_f0.pth"])
def test_published_sizes_are_imported(checkpoints: Callable[[str], Path], file: str) -> None:
    network = read_network(checkpoints("full") / file)
    assert {k: v.shape for k, v in network.tensors.items()} == canonical_shapes(network.config)


def test_the_three_spellings_of_weight_norm_agree(tmp_path: Path, export: Export) -> None:
    legacy = read_network(saved(tmp_path, export)).tensors
    weight, renamed, fused = export["weight"], OrderedDict(), OrderedDict()
    for key, tensor in weight.items():
        if not key.endswith((".weight_g", ".weight_v")):
            renamed[key] = fused[key] = tensor
            continue
        stem, place = key[:-2], "original0" if key.endswith("_g") else "original1"
        renamed[stem.replace(".weight", ".parametrizations.weight.") + place] = tensor
        fused[stem] = torch._weight_norm(weight[stem + "_v"].float(), weight[stem + "_g"].float(), 0)

    parametrized = read_network(saved(tmp_path, {**export, "weight": renamed})).tensors
    assert all(parametrized[key].tobytes() == values.tobytes() for key, values in legacy.items())
    plain = read_network(saved(tmp_path, {**export, "weight": fused})).tensors
    for key, values in legacy.items():
        np.testing.assert_allclose(plain[key], values, rtol=2e-6, atol=1e-7, err_msg=key)  # torch folds in float32


@pytest.mark.parametrize(("shape", "axis"), [((64, 32, 16), 0), ((48, 3, 128), 2)])
def test_folding_is_torchs_weight_norm_to_the_last_places(shape: tuple[int, ...], axis: int) -> None:
    generator = torch.Generator().manual_seed(5)
    direction = torch.randn(shape, generator=generator)
    gain = torch.rand([n if a == axis else 1 for a, n in enumerate(shape)], generator=generator) + 0.5
    folded = fold_weight_norm("w", gain.numpy(), direction.numpy(), axis)
    assert folded.dtype == np.float32
    np.testing.assert_allclose(folded, torch._weight_norm(direction, gain, axis).numpy(), rtol=1e-6)  # a few ulp
    exact = torch._weight_norm(direction.double(), gain.double(), axis).numpy()
    np.testing.assert_array_equal(folded, exact.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_float_formats_are_widened(tmp_path: Path, export: Export, dtype: torch.dtype) -> None:
    weight = OrderedDict((k, v.to(dtype)) for k, v in export["weight"].items())
    network = read_network(saved(tmp_path, {**export, "weight": weight}))
    np.testing.assert_array_equal(network.tensors["enc_p.emb_phone.weight"], weight["enc_p.emb_phone.weight"].float())


def test_bfloat16_safetensors_are_widened(tiny: Path, tmp_path: Path) -> None:
    tensors = {k: v.to(torch.bfloat16) for k, v in load_file(tiny / "contentvec" / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny / "contentvec" / "config.json").read_bytes())
    network = read_network(tmp_path)
    np.testing.assert_array_equal(network.tensors["final_proj.weight"], tensors["final_proj.weight"].float())


def test_views_into_a_shared_storage_are_read_by_offset_and_stride(tmp_path: Path, export: Export) -> None:
    weight = export["weight"]
    columns = weight["enc_p.emb_phone.weight"].t().contiguous().t()  # not contiguous: strides matter
    joined = torch.cat([weight["enc_p.emb_phone.bias"], weight["enc_p.proj.bias"]])
    hidden = len(weight["enc_p.emb_phone.bias"])
    expected = read_network(saved(tmp_path, export)).tensors
    weight |= {
        "enc_p.emb_phone.weight": columns,
        "enc_p.emb_phone.bias": joined[:hidden],
        "enc_p.proj.bias": joined[hidden:],
    }
    found = read_network(saved(tmp_path, export, "views.pth")).tensors
    assert all(found[key].tobytes() == values.tobytes() for key, values in expected.items())


def test_files_of_torch_before_1_6_are_read(tmp_path: Path, export: Export) -> None:
    expected = read_network(saved(tmp_path, export)).tensors
    torch.save(export, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = read_network(tmp_path / "old.pth").tensors
    assert all(found[key].tobytes() == values.tobytes() for key, values in expected.items())


def test_posterior_encoder_is_left_out(tmp_path: Path, export: Export) -> None:
    export["weight"]["enc_q.pre.weight"] = torch.zeros(2, 2)
    assert not any(key.startswith("enc_q") for key in read_network(saved(tmp_path, export)).tensors)


def test_missing_f0_and_version_mean_1_and_v1(tiny: Path, tmp_path: Path) -> None:
    export = torch.load(tiny / "voices" / "v1_40k_f0.pth", weights_only=True)
    del export["f0"], export["version"]
    config = read_network(saved(tmp_path, export)).config
    assert isinstance(config, SynthesizerConfig)
    assert (config.has_f0, config.version) == (True, "v1")


@pytest.mark.parametrize("rate", ["40k", 40000, "40000"])
def test_sample_rate_is_read_from_sr_where_the_config_has_none(tmp_path: Path, export: Export, rate: object) -> None:
    export["config"] = export["config"][:17]
    export["sr"] = rate
    config = read_network(saved(tmp_path, export)).config
    assert isinstance(config, SynthesizerConfig)
    assert config.sample_rate == 40_000


def test_applio_metadata_is_kept_and_strange_embedders_warned_of(tiny: Path, tmp_path: Path) -> None:
    export = torch.load(tiny / "voices" / "applio_v2_40k.pth", weights_only=True)
    extra = read_network(tiny / "voices" / "applio_v2_40k.pth").extra
    assert (extra["epoch"], extra["author"], extra["vocoder"]) == (300, "golden", "HiFi-GAN")
    assert "warnings" not in extra
    export["embedder_model"] = "spin-v2"
    (warning,) = read_network(saved(tmp_path, export)).extra["warnings"]
    assert "spin-v2" in warning


# strictness


@pytest.mark.parametrize(
    "key",
    ["enc_p.proj.bias", "dec.ups.1.weight_g", "flow.flows.6.enc.in_layers.2.weight_v", "dec.noise_convs.0.weight"],
)
def test_a_missing_tensor_is_named(tmp_path: Path, export: Export, key: str) -> None:
    del export["weight"][key]
    with pytest.raises(ModelKeys, match=rf"1 missing \({key}\)"):
        read_network(saved(tmp_path, export))


@pytest.mark.parametrize("key", ["dec.ups.9.bias", "dec.conv_pre.weight_g", "unheard.of"])
def test_an_unexpected_tensor_is_named(tmp_path: Path, export: Export, key: str) -> None:
    export["weight"][key] = torch.zeros(3)
    with pytest.raises(ModelKeys, match=rf"1 unexpected \({key}\)"):
        read_network(saved(tmp_path, export))


@pytest.mark.parametrize("key", ["enc_p.proj.bias", "dec.ups.0.weight_g", "dec.ups.0.weight_v", "dec.conv_pre.weight"])
def test_a_misshaped_tensor_is_named_with_both_shapes(tmp_path: Path, export: Export, key: str) -> None:
    shape = list(export["weight"][key].shape)
    export["weight"][key] = export["weight"][key].repeat(2, *[1] * (len(shape) - 1))
    with pytest.raises(ModelKeys) as caught:
        read_network(saved(tmp_path, export))
    assert f"1 misshaped ({key} is {[2 * shape[0], *shape[1:]]}, expected {shape})" in str(caught.value)


def test_a_missing_rmvpe_or_hubert_tensor_is_named(tiny: Path, tmp_path: Path) -> None:
    state = torch.load(tiny / "rmvpe.pt", weights_only=True)
    del state["unet.decoder.layers.3.conv1.1.running_var"]
    with pytest.raises(ModelKeys, match=r"unet\.decoder\.layers\.3\.conv1\.1\.running_var"):
        read_network(saved(tmp_path, state))
    tensors = load_file(tiny / "contentvec" / "model.safetensors")
    del tensors["encoder.layers.7.attention.out_proj.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny / "contentvec" / "config.json").read_bytes())
    with pytest.raises(ModelKeys, match=r"encoder\.layers\.7\.attention\.out_proj\.bias"):
        read_network(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path, export: Export, value: float) -> None:
    export["weight"]["enc_p.proj.bias"][3] = value
    try:
        with pytest.raises(ModelCorrupt, match=r"enc_p\.proj\.bias holds NaN or infinite"):
            read_network(saved(tmp_path, export))
    finally:
        export["weight"]["enc_p.proj.bias"][3] = 0


# contradictions between what a file says and what it holds


def test_f0_flag_against_the_pitch_embedding(tmp_path: Path, export: Export) -> None:
    export["f0"] = 0
    with pytest.raises(ModelNotRvc, match=r"says f0 = 0, but it has a pitch embedding"):
        read_network(saved(tmp_path, export))
    del export["f0"], export["weight"]["enc_p.emb_pitch.weight"]
    with pytest.raises(ModelNotRvc, match=r"states no f0, which means 1, but it has no pitch embedding"):
        read_network(saved(tmp_path, export))


def test_version_against_the_feature_width(tiny: Path, tmp_path: Path) -> None:
    export = torch.load(tiny / "voices" / "v2_40k_f0.pth", weights_only=True)
    del export["version"]
    with pytest.raises(ModelNotRvc, match=r"states no version, which means v1, but .* 768 features, the width of v2"):
        read_network(saved(tmp_path, export))


def test_sample_rate_against_the_upsample_rates(tmp_path: Path, export: Export) -> None:
    export["config"][17] = 48_000
    with pytest.raises(ModelNotRvc, match=r"400 samples per frame, but 48000 Hz"):
        read_network(saved(tmp_path, export))


def test_any_rate_that_the_upsample_rates_make_is_accepted(tmp_path: Path, export: Export) -> None:
    export["config"][12], export["config"][17] = [10, 6, 2, 2], 24_000
    for i, stride in enumerate((24, 4, 2, 1)):
        shape = export["weight"][f"dec.noise_convs.{i}.weight"].shape[:2]
        export["weight"][f"dec.noise_convs.{i}.weight"] = torch.zeros(*shape, 2 * stride if stride > 1 else 1)
    config = read_network(saved(tmp_path, export)).config
    assert isinstance(config, SynthesizerConfig)
    assert config.sample_rate == 24_000


def test_a_wrong_rate_label_is_a_warning(tmp_path: Path, export: Export) -> None:
    export["sr"] = "48k"
    (warning,) = read_network(saved(tmp_path, export)).extra["warnings"]
    assert "48000" in warning
    assert "40000" in warning


@pytest.mark.parametrize(
    ("place", "value"),
    [(2, "32"), (6, 10**9), (5, 0), (10, []), (11, [3, 7, 11]), (12, [10] * 99), (13, None), (9, "2")],
)
def test_impossible_config_values_are_refused(tmp_path: Path, export: Export, place: int, value: object) -> None:
    export["config"][place] = value
    with pytest.raises(ModelNotRvc, match=rf"config\[{place}\]|residual block type 2"):
        read_network(saved(tmp_path, export))


# HuBERT variants


def fairseq_tensors(tiny: Path) -> dict[str, torch.Tensor]:
    """A fairseq state dict: the published names, as generated, without the objects around it."""
    from rvc_batch.importers.torch_file import open_torch_file

    with open_torch_file(tiny / "hubert_base.pt") as file:
        assert isinstance(file.root, dict)
        return {k: torch.from_numpy(t.read().copy()) for k, t in file.state_dict(file.root["model"]).items()}


def test_heads_come_from_the_file_or_are_an_error(tiny: Path, tmp_path: Path) -> None:
    model = fairseq_tensors(tiny)
    old = saved(tmp_path, {"args": Namespace(encoder_attention_heads=8), "cfg": None, "model": model})
    config = read_network(old).config
    assert isinstance(config, HubertConfig)
    assert config.n_heads == 8
    with pytest.raises(ModelNotRvc, match=r"None attention heads for 48 channels"):
        read_network(saved(tmp_path, {"args": None, "cfg": None, "model": model}))


@pytest.mark.parametrize(
    ("key", "value"), [("layer_norm_first", True), ("extractor_mode", "layer_norm"), ("activation_fn", "relu")]
)
def test_fairseq_variants_with_other_arithmetic_are_refused(
    tiny: Path, tmp_path: Path, key: str, value: object
) -> None:
    cfg = {"model": {"encoder_attention_heads": 4, key: value}}
    with pytest.raises(ModelNotRvc, match=rf"{key} = {value}"):
        read_network(saved(tmp_path, {"cfg": cfg, "model": fairseq_tensors(tiny)}))


@pytest.mark.parametrize(
    ("key", "value"), [("do_stable_layer_norm", True), ("hidden_act", "relu"), ("layer_norm_eps", 1e-12)]
)
def test_folder_variants_with_other_arithmetic_are_refused(tiny: Path, tmp_path: Path, key: str, value: object) -> None:
    config = json.loads((tiny / "contentvec" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    (tmp_path / "model.safetensors").write_bytes((tiny / "contentvec" / "model.safetensors").read_bytes())
    with pytest.raises(ModelNotRvc, match=rf"{key} = {value}"):
        read_network(tmp_path)


def test_fairseqs_layer_expression_is_parsed_not_evaluated(tiny: Path, tmp_path: Path) -> None:
    model = fairseq_tensors(tiny)
    layers = "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2"
    cfg = {"encoder_attention_heads": 4, "conv_feature_layers": layers}
    config = read_network(saved(tmp_path, {"cfg": {"model": cfg}, "model": model})).config
    assert isinstance(config, HubertConfig)
    assert config.conv_strides == (5, 2, 2, 2, 2, 2, 2)
    cfg["conv_feature_layers"] = "__import__('os').system('true') or [(32,10,5)]"
    with pytest.raises(ModelNotRvc, match="conv_feature_layers"):
        read_network(saved(tmp_path, {"cfg": {"model": cfg}, "model": model}))

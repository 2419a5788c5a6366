"""The two backends mirror each other: same files, same public names, same modules, keys and canonical shapes."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.engine.blas import prepare_process

prepare_process()

import torch  # noqa: E402

from rvc_batch.engine import mlx_nets, torch_nets  # noqa: E402
from rvc_batch.engine.checkpoints import NetworkConfig  # noqa: E402
from rvc_batch.engine.mlx_nets import crepe as mlx_crepe  # noqa: E402
from rvc_batch.engine.mlx_nets import fcpe as mlx_fcpe  # noqa: E402
from rvc_batch.engine.mlx_nets import hubert as mlx_hubert  # noqa: E402
from rvc_batch.engine.mlx_nets import layers as mlx_layers  # noqa: E402
from rvc_batch.engine.mlx_nets import rmvpe as mlx_rmvpe  # noqa: E402
from rvc_batch.engine.mlx_nets import synthesizer as mlx_synthesizer  # noqa: E402
from rvc_batch.engine.network_config import (  # noqa: E402
    CrepeConfig,
    FcpeConfig,
    HubertConfig,
    RmvpeConfig,
    SynthesizerConfig,
)
from rvc_batch.engine.torch_nets import crepe as torch_crepe  # noqa: E402
from rvc_batch.engine.torch_nets import fcpe as torch_fcpe  # noqa: E402
from rvc_batch.engine.torch_nets import hubert as torch_hubert  # noqa: E402
from rvc_batch.engine.torch_nets import layers as torch_layers  # noqa: E402
from rvc_batch.engine.torch_nets import rmvpe as torch_rmvpe  # noqa: E402
from rvc_batch.engine.torch_nets import synthesizer as torch_synthesizer  # noqa: E402
from rvc_batch.importers import rules  # noqa: E402

CONTAINERS = (torch.nn.ModuleList, torch.nn.Sequential)  # plain lists in MLX
FILES = [
    *("backend", "crepe", "encoder", "fcpe", "flow", "generator", "hubert", "layers", "mel"),
    *("position_noise", "refinegan", "rmvpe", "synthesizer"),
]
FORMULATIONS = {mlx_nets: ["cpu_products", "streamed"], torch_nets: []}  # how a layer is computed, beside what it is
MLX_ALONE = {
    "fused",
    "span_rows",
    "window",
    "_stage",
    "_wave",
}  # how MLX runs flow and generator; torch has no counterpart

Config = NetworkConfig
Network = Any


def hubert_config(width: int, hidden: int, heads: int) -> HubertConfig:
    return HubertConfig(
        conv_dims=(width,) * 7,
        conv_kernels=(10, 3, 3, 3, 3, 2, 2),
        conv_strides=(5, 2, 2, 2, 2, 2, 2),
        hidden=hidden,
        ffn=4 * hidden,
        n_layers=12,
        n_heads=heads,
        pos_kernel=128,
        pos_groups=16,
        projection=256,
    )


def rmvpe_config(base: int, blocks: int, middle: int) -> RmvpeConfig:
    return RmvpeConfig(base, 5, blocks, middle, 256, 1, 128, 360)


def voice_config(
    version: str, sample_rate: int, rates: tuple[int, ...], kernels: tuple[int, ...], *, has_f0: bool, tiny: bool
) -> SynthesizerConfig:
    return SynthesizerConfig(
        version=version,
        feature_dim=256 if version == "v1" else 768,
        has_f0=has_f0,
        sample_rate=sample_rate,
        inter_channels=32 if tiny else 192,
        hidden_channels=32 if tiny else 192,
        filter_channels=64 if tiny else 768,
        n_heads=2,
        n_layers=3 if tiny else 6,
        kernel_size=3,
        resblock_kernels=(3, 7, 11),
        resblock_dilations=((1, 3, 5),) * 3,
        upsample_rates=rates,
        upsample_initial_channels=64 if tiny else 512,
        upsample_kernels=kernels,
        n_speakers=109,
        gin_channels=16 if tiny else 256,
    )


CONFIGS: dict[str, Config] = {
    "hubert tiny": hubert_config(32, 48, 4),
    "hubert base": hubert_config(512, 768, 12),
    "rmvpe tiny": rmvpe_config(4, 2, 2),
    "rmvpe published": rmvpe_config(16, 4, 4),
    "fcpe tiny": FcpeConfig(128, 16, 6, 32, 31, 360, 32.7, 1975.5),
    "fcpe published": FcpeConfig(128, 512, 6, 1024, 31, 360, 32.7, 1975.5),
    "crepe tiny": CrepeConfig((128, 16, 16, 16, 32, 64), 360),
    "crepe full": CrepeConfig((1024, 128, 128, 128, 256, 512), 360),
    "v1 32k": voice_config("v1", 32000, (10, 4, 2, 2, 2), (16, 16, 4, 4, 4), has_f0=True, tiny=True),
    "v1 40k without f0": voice_config("v1", 40000, (10, 10, 2, 2), (16, 16, 4, 4), has_f0=False, tiny=True),
    "v1 48k": voice_config("v1", 48000, (10, 6, 2, 2, 2), (16, 16, 4, 4, 4), has_f0=True, tiny=True),
    "v2 32k": voice_config("v2", 32000, (10, 8, 2, 2), (20, 16, 4, 4), has_f0=True, tiny=True),
    "v2 40k published": voice_config("v2", 40000, (10, 10, 2, 2), (16, 16, 4, 4), has_f0=True, tiny=False),
    "v2 48k without f0": voice_config("v2", 48000, (12, 10, 2, 2), (24, 20, 4, 4), has_f0=False, tiny=True),
    "v2 24k": voice_config("v2", 24000, (10, 6, 2, 2), (20, 12, 4, 4), has_f0=True, tiny=True),
    "mrf": replace(
        voice_config("v2", 40000, (10, 10, 2, 2), (16, 16, 4, 4), has_f0=True, tiny=True), vocoder="MRF HiFi-GAN"
    ),
    "refinegan": replace(
        voice_config("v2", 40000, (10, 10, 2, 2), (16, 16, 4, 4), has_f0=True, tiny=True), vocoder="RefineGAN"
    ),
    "refinegan 24k published": replace(
        voice_config("v2", 24000, (10, 6, 2, 2), (20, 12, 4, 4), has_f0=True, tiny=False), vocoder="RefineGAN"
    ),
    "refinegan with odd rates": replace(
        voice_config("v2", 22500, (9, 5, 5), (18, 10, 10), has_f0=True, tiny=True), vocoder="RefineGAN"
    ),
    "v2 with odd rates": voice_config("v2", 22500, (9, 5, 5), (18, 10, 10), has_f0=True, tiny=True),
}


def build(config: Config) -> tuple[Network, Network]:
    """Build the network of a config in both backends, without values."""
    ours, theirs = {
        HubertConfig: (mlx_hubert.Hubert, torch_hubert.Hubert),
        RmvpeConfig: (mlx_rmvpe.Rmvpe, torch_rmvpe.Rmvpe),
        FcpeConfig: (mlx_fcpe.Fcpe, torch_fcpe.Fcpe),
        CrepeConfig: (mlx_crepe.Crepe, torch_crepe.Crepe),
        SynthesizerConfig: (mlx_synthesizer.Synthesizer, torch_synthesizer.Synthesizer),
    }[type(config)]
    with torch.device("meta"):
        return ours(config), theirs(config)


def differences(ours: Network, theirs: Network) -> list[str]:
    """Return every module that is not of the same class and every tensor that is not of the same canonical shape."""
    found = []
    for what, mlx_side, torch_side in (
        (
            "module",
            {name: type(module).__name__ for name, module in ours.named_modules()},
            {name: type(m).__name__ for name, m in theirs.named_modules() if not isinstance(m, CONTAINERS)},
        ),
        ("tensor", mlx_layers.canonical_shapes(ours), torch_layers.canonical_shapes(theirs)),
    ):
        for name in sorted(set(mlx_side) | set(torch_side)):
            if mlx_side.get(name) != torch_side.get(name):
                found.append(f"{what} {name}: {mlx_side.get(name)} in MLX, {torch_side.get(name)} in torch")
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_networks_have_the_same_modules_keys_and_canonical_shapes(name: str) -> None:
    ours, theirs = build(CONFIGS[name])
    assert len(mlx_layers.canonical_shapes(ours)) > 35
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_importers_know_the_same_tensors(name: str) -> None:
    ours, _ = build(CONFIGS[name])
    assert rules.canonical_shapes(CONFIGS[name]) == mlx_layers.canonical_shapes(ours)


def test_comparison_reports_a_module_that_only_one_side_has() -> None:
    ours, theirs = build(CONFIGS["v2 40k published"])
    ours.dec.extra = mlx_layers.Linear(2, 3)
    assert differences(ours, theirs) == [
        "module dec.extra: Linear in MLX, None in torch",
        "tensor dec.extra.bias: (3,) in MLX, None in torch",
        "tensor dec.extra.weight: (3, 2) in MLX, None in torch",
    ]


def test_comparison_reports_another_class_and_another_shape() -> None:
    ours, theirs = build(CONFIGS["rmvpe tiny"])
    theirs.unet.encoder.layers[0].conv[0].shortcut = torch_layers.Conv1d(1, 4, 1)
    assert differences(ours, theirs) == [
        "module unet.encoder.layers.0.conv.0.shortcut: Conv2d in MLX, Conv1d in torch",
        "tensor unet.encoder.layers.0.conv.0.shortcut.weight: (4, 1, 1, 1) in MLX, (4, 1, 1) in torch",
    ]


def test_packages_have_the_same_files() -> None:
    for package, formulations in FORMULATIONS.items():
        (folder,) = map(Path, package.__path__)
        assert sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__") == sorted(FILES + formulations)


def interface(thing: Any) -> dict[str, list[str]]:
    """Return the argument names of a function, or of every method a class defines itself."""
    if inspect.isfunction(thing):
        return {"": list(inspect.signature(thing).parameters)}
    own = {"__call__" if n == "forward" else n: f for n, f in vars(thing).items() if inspect.isfunction(f)}
    return {name: list(inspect.signature(f).parameters) for name, f in own.items()}


@pytest.mark.parametrize("file", [f for f in FILES if f != "backend"])
def test_files_have_the_same_public_names_and_arguments(file: str) -> None:
    ours, theirs = (importlib.import_module(f"rvc_batch.engine.{b}_nets.{file}") for b in ("mlx", "torch"))
    assert [name for name in ours.__all__ if name not in MLX_ALONE] == theirs.__all__
    for name in theirs.__all__:
        mlx_side, torch_side = getattr(ours, name), getattr(theirs, name)
        assert inspect.isclass(mlx_side) == inspect.isclass(torch_side), name
        if torch_side.__module__.startswith("rvc_batch"):  # the rest are torch's own layers
            ours_alone = interface(mlx_side).keys() - interface(torch_side).keys()
            assert ours_alone <= MLX_ALONE, name
            for method, arguments in interface(torch_side).items():
                extra = interface(mlx_side)[method][len(arguments) :]
                assert interface(mlx_side)[method] == [*arguments, *extra], name
                assert extra in ([], ["precision"]), name  # of which torch has one only


@pytest.mark.parametrize("file", FILES)
def test_public_classes_are_the_ones_exported(file: str) -> None:
    for backend in ("mlx", "torch"):
        module = importlib.import_module(f"rvc_batch.engine.{backend}_nets.{file}")
        defined = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == module.__name__
        }
        assert defined <= set(module.__all__)


def test_backends_have_the_same_public_methods() -> None:
    from rvc_batch.engine.backend import Backend
    from rvc_batch.engine.mlx_nets.backend import MlxBackend
    from rvc_batch.engine.torch_nets.backend import TorchBackend

    methods = {name for name in vars(Backend) if not name.startswith("_")}
    assert len(methods) > 10
    for name in methods:
        expected = list(inspect.signature(getattr(Backend, name)).parameters)
        for backend in (MlxBackend, TorchBackend):
            assert list(inspect.signature(getattr(backend, name)).parameters) == expected, name
            public = {n for n, f in vars(backend).items() if not n.startswith("_") and inspect.isfunction(f)}
            assert public == methods

"""The two backends, opened on the synthetic networks as the importers read them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rvc_batch.engine.backend import Backend, open_backend
from rvc_batch.engine.checkpoints import CheckpointHeader, write_checkpoint
from rvc_batch.engine.voice import Voice
from rvc_batch.importers.identify import read_network

OpenBackend = Callable[[str, str], Backend]
OpenVoice = Callable[[str, str], Voice]


def imported(source: Path, target: Path) -> Path:
    """Write the canonical checkpoint of a foreign file."""
    network = read_network(source)
    header = CheckpointHeader(network.kind, network.config, source.name, "0" * 64, network.extra)
    write_checkpoint(target, header, network.tensors)
    return target


@pytest.fixture(scope="session")
def networks(checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a size to the folder of the canonical checkpoints of its content and pitch networks."""

    @functools.cache
    def write(size: str) -> Path:
        folder = tmp_path_factory.mktemp(f"canonical-{size}")
        imported(checkpoints(size) / "hubert_base.pt", folder / "hubert.safetensors")
        imported(checkpoints(size) / "rmvpe.pt", folder / "rmvpe.safetensors")
        return folder

    return write


@pytest.fixture(scope="session")
def open_networks(networks: Callable[[str], Path]) -> Iterator[OpenBackend]:
    """Return a function from (backend, size) to an open backend."""

    @functools.cache
    def opened(name: str, size: str) -> Backend:
        folder = networks(size)
        return open_backend(name, hubert=folder / "hubert.safetensors", rmvpe=folder / "rmvpe.safetensors")

    yield opened
    opened.cache_clear()


@pytest.fixture(scope="session")
def open_voice(checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> OpenVoice:
    """Return a function from (size, name) to a generated voice."""

    @functools.cache
    def opened(size: str, name: str) -> Voice:
        path = tmp_path_factory.mktemp("voice") / f"{name}.safetensors"
        return Voice.open(name, imported(checkpoints(size) / "voices" / f"{name}.pth", path), None)

    return opened


@pytest.fixture(params=["mlx", "torch"])
def framework(request: pytest.FixtureRequest) -> str:
    """Run a test once with each backend."""
    return str(request.param)

"""Fixtures shared by all tiers: synthetic checkpoints, generated once, and both backends open on them."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rvc_batch.engine.backend import Backend, open_backend
from rvc_batch.engine.blas import prepare_process
from rvc_batch.engine.checkpoints import CheckpointHeader, write_checkpoint
from rvc_batch.engine.voice import Voice
from rvc_batch.importers.identify import read_network

prepare_process()  # before any test module imports mlx

ROOT = Path(__file__).parent.parent
GENERATOR = ROOT / "tests" / "golden" / "make_checkpoints.py"
CHECKPOINTS = ROOT / "build" / "golden-checkpoints"
FULL_FILES = ("contentvec*", "hubert_base.pt", "rmvpe.pt", "voices/v2_40k_f0.pth", "index/*")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="Write the recorded pages of docs/ anew.")


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Return a function that compares a page of the documentation with what it must say, or writes it (--record)."""

    def compare(page: Path, text: str) -> None:
        if request.config.getoption("--record"):
            page.write_text(text, encoding="utf-8")
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is out of date; run this test with --record"

    return compare


@pytest.fixture(scope="session")
def checkpoints() -> Callable[[str], Path]:
    """Return a function from a size ("tiny", "full") to the folder of its generated checkpoints.

    The published size takes 15 s and about 1 GB: only tests marked `full` ask for it.
    """
    return _generated


def _generated(size: str) -> Path:
    folder = CHECKPOINTS / size
    if folder.is_dir():
        return folder
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKPOINTS) as scratch:
        unfinished = Path(scratch) / size
        only = ["--only", *FULL_FILES] if size == "full" else []
        command = [sys.executable, GENERATOR, unfinished, "--seed", "1", "--size", size, *only]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            unfinished.replace(folder)
        except OSError:  # another test process was faster
            if not folder.is_dir():
                raise
    return folder


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

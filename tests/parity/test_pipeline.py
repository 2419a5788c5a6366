"""Every step around the networks, and the whole conversion, against the recorded upstream programs.

Goes through tools/golden_results.py, so that what is proven here is what that tool computes for any golden folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.parity import golden

TOOL = Path(__file__).parents[2] / "tools" / "golden_results.py"
OpenGolden = Callable[[str], Any]


@pytest.fixture(scope="module")
def open_golden(checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> OpenGolden:
    """Return a function from a backend to the golden results of the stored entries."""
    spec = importlib.util.spec_from_file_location("golden_results", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    opened: dict[str, Any] = {}

    def on(backend: str) -> Any:
        if backend not in opened:
            folder = checkpoints("tiny").parent
            opened[backend] = tool.Golden(golden.FOLDER, folder, tmp_path_factory.mktemp(backend), backend)
        return opened[backend]

    return on


def assert_entry(results: Any, name: str) -> None:
    entry = golden.ENTRIES[name]
    found = results.compute(entry)
    for output in entry["outputs"]:
        golden.assert_golden(name, output, found[output])


@pytest.mark.parametrize(
    "name",
    [
        p
        for prefix in ("sine", "pitch_coarse", "highpass", "rms_mix", "rmvpe_decode", "split")
        for p in golden.entries(prefix)
    ],
)
def test_step(open_golden: OpenGolden, name: str) -> None:
    assert_entry(open_golden("mlx"), name)


@pytest.mark.parametrize("name", golden.entries("blend"))
def test_retrieval(open_golden: OpenGolden, checkpoints: Callable[[str], Path], name: str) -> None:
    checkpoints(golden.ENTRIES[name]["network_size"])
    assert_entry(open_golden("mlx"), name)


@pytest.mark.parametrize("name", golden.entries("e2e"))
def test_whole_conversion(
    open_golden: OpenGolden, checkpoints: Callable[[str], Path], framework: str, name: str
) -> None:
    checkpoints(golden.ENTRIES[name]["network_size"])
    assert_entry(open_golden(framework), name)

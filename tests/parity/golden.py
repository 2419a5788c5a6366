"""Access to the golden outputs: which entries there are, their inputs, and the one comparison all parity tests use."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import golden_io
from tests.golden.check_golden import judge

FOLDER = Path(__file__).parent.parent / "golden"
MANIFEST = golden_io.load_manifest(FOLDER)
ENTRIES: dict[str, dict[str, Any]] = {e["name"]: e for e in MANIFEST["entries"]}


def entries(prefix: str) -> list[Any]:
    """Return the names of the stored entries as test parameters; those of published size are marked `full`."""
    names = [name for name, e in ENTRIES.items() if name.startswith(prefix) and (FOLDER / e["file"]).is_file()]
    assert names, f"no stored golden entry starts with {prefix!r}"
    return [pytest.param(n, marks=pytest.mark.full) if ENTRIES[n]["network_size"] == "full" else n for n in names]


def evaluated(expression: str) -> np.ndarray:
    """Return the input that a manifest expression such as `golden_io.normal(1001, (40, 768))` stands for."""
    call = ast.parse(expression, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Attribute)
    function = getattr(golden_io, call.func.attr)
    return np.asarray(function(*(ast.literal_eval(argument) for argument in call.args)))


def audio(entry: dict[str, Any]) -> np.ndarray:
    """Return the 16 kHz wave of an entry."""
    wave = golden_io.audio(FOLDER, entry["inputs"]["audio"])
    start, stop = entry["inputs"].get("samples", (0, None))
    return wave[start:stop]


def assert_golden(name: str, output: str, got: np.ndarray) -> None:
    """Compare a full array with a stored output by the output's own tolerance."""
    entry = ENTRIES[name]
    reference = np.load(FOLDER / entry["file"])
    expected, rules = reference[output], entry["outputs"][output]
    assert got.shape == tuple(rules["shape"]), f"{name}/{output} is {got.shape}, expected {rules['shape']}"
    got = golden_io.select(got, rules["select"])
    stable = reference["aux_stable"] if "aux_stable" in reference.files else None
    ok, worst, relative, remark = judge(got, expected, rules["tol"], stable)
    assert ok, f"{name}/{output}: max {worst:.2e}, relative {relative:.2e} {remark}; allowed {rules['tol']}"

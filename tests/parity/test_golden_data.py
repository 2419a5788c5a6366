"""The golden data is what it says: nothing missing beyond the stated list, checkpoints generated bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity import golden

LEFT_OUT = {
    "e2e_tiny_v2b_main",
    "e2e_full_a_main",
    "e2e_full_b_main",
    "e2e_full_b_applio",
    "hubert_full_speech_slt",
    "rmvpe_full_speech_slt",
    "rmvpe_full_glissando",
    "synth_full_v2_48k_f0",
}


def test_only_the_stated_entries_are_left_out() -> None:
    missing = {name for name, e in golden.ENTRIES.items() if not (golden.FOLDER / e["file"]).is_file()}
    assert missing == LEFT_OUT
    readme = (golden.FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in LEFT_OUT)


def test_golden_data_stays_below_ten_megabytes() -> None:
    assert sum(p.stat().st_size for p in golden.FOLDER.rglob("*") if p.is_file()) < 10_000_000


@pytest.mark.parametrize("size", ["tiny", pytest.param("full", marks=pytest.mark.full)])
def test_generated_checkpoints_are_those_of_the_golden_data(checkpoints: Callable[[str], Path], size: str) -> None:
    digests = json.loads((checkpoints(size) / "digests.json").read_text())
    expected = golden.MANIFEST["checkpoints"][size]
    assert digests["seed"] == golden.MANIFEST["seed"]
    assert digests["files"]
    assert digests["files"] == {name: expected[name] for name in digests["files"]}
    if size == "tiny":
        assert set(digests["files"]) == set(expected)

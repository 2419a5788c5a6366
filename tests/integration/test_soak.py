"""A short soak; `make soak` runs a long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon_harness import ROOT

SECONDS, SEED = 20, 11


@pytest.mark.skipif(sys.platform != "linux", reason="the nemesis mounts and counts descriptors as Linux does")
def test_everything_that_was_dropped_is_accounted_for_whatever_broke(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--minutes", str(SECONDS / 60), "--seed", str(SEED), "--report", str(report)]
    result = subprocess.run(
        [sys.executable, "-m", "tests.soak", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["inputs"] == sum(told["states"].values()) >= 10
    assert sum(told["blows"].values()) >= 3

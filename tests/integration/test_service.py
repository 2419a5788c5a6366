"""The service as launchd and systemd see it: a program that is started, stopped and started again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_batch.home import Home
from rvc_batch.jobs.starts import MAX_STARTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_whole_program_ends_its_crash_loop(home: Home) -> None:
    home.config_file.write_text("depth = 1\n")
    command = [sys.executable, "-m", "rvc_batch", "--home", str(home.root), "run", "--service"]
    codes = [subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode for _ in range(MAX_STARTS)]
    assert codes == [78, 78, 78, 78, 0]
    record = json.loads((home.state / "last_start_error.json").read_text())
    assert record["has_given_up"]
    assert "depth" in record["message"]

"""A sample of the states that power loss can leave; `make syscalls` tries all of them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.daemon_harness import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="strace is there on Linux only")
def test_power_loss_after_any_operation_leaves_one_whole_result() -> None:
    command = [sys.executable, "-m", "tests.power_loss", "--every", "9"]  # it forks, so it gets a process of its own
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    told = re.search(r"survived: (\d+) of (\d+) different states", result.stdout)
    assert told is not None
    assert int(told[1]) >= 10
    assert int(told[2]) >= 100

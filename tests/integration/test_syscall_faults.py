"""A sample of the loop over system calls; `make syscalls` runs all of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.daemon_harness import ROOT
from tests.syscall_faults import STEPS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace is there on Linux only")


def walk(*options: str) -> str:
    """Run the loop in a process of its own, because it forks; return what it printed."""
    command = [sys.executable, "-m", "tests.syscall_faults", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(("mode", "every"), [("kills", 19), ("errors", 31)])
def test_every_step_survives_a_blow_at_any_system_call(mode: str, every: int) -> None:
    said = walk("--every", str(every), *(["--errors"] if mode == "errors" else []))
    survived = dict(re.findall(rf"^(\w+) +{mode} survived: +(\d+)", said, re.MULTILINE))
    assert list(survived) == [*STEPS, "all"]
    assert min(map(int, survived.values())) >= 2


def test_daemon_and_worker_get_over_failed_system_calls() -> None:
    survived = re.search(r"errors survived: (\d+)", walk("--daemon", "--every", "29"))
    assert survived is not None
    assert int(survived[1]) >= 5

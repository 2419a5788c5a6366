"""The machine is kept awake while a job is rendered and a few seconds longer, by a program that ends when we do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_batch.jobs.awake import LINGER_SECONDS, Awake, command_for
from tests.daemon_harness import eventually
from tests.queue_fakes import FakeClock

SCRIPT = """#!/bin/sh
echo "$0 $*" >> {log}
{body}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins on the path; return where they note that they were called and ended."""
    record = tmp_path / "log"
    bodies = {
        "caffeinate": f"trap 'echo ended >> {record}; exit 0' TERM\nwhile :; do sleep 0.02; done",
        "systemd-inhibit": f'while [ $# -gt 1 ]; do shift; done\n"$1"\necho ended >> {record}',
    }
    for name, body in bodies.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(SCRIPT.format(log=record, body=body))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return record


def calls(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_machine_is_kept_awake_only_while_a_job_runs(platform: str, log: Path) -> None:
    clock = FakeClock()
    awake = Awake(platform, clock)
    awake.hold(False)
    assert not awake.is_held
    for _ in range(3):
        awake.hold(True)
    eventually(lambda: len(calls(log)) == 1, "the program runs, once")
    assert " ".join(command_for(platform)[1:]) in calls(log)[0]
    clock.step(LINGER_SECONDS - 1)
    awake.hold(False)
    assert awake.is_held, "the next job may be here in a moment"
    clock.step(2)
    awake.hold(False)
    assert not awake.is_held


def test_what_is_asked_of_the_systems() -> None:
    assert command_for("darwin") == ("caffeinate", "-i", "-w", str(os.getpid()))
    assert command_for("linux")[:3] == ("systemd-inhibit", "--what=idle", "--mode=block")
    assert command_for("win32") == ()


def test_assertion_on_linux_ends_when_its_daemon_is_killed(log: Path) -> None:
    code = "from rvc_batch.jobs.awake import Awake; import time; a = Awake('linux'); a.hold(True); time.sleep(600)"
    daemon = subprocess.Popen([sys.executable, "-c", code])
    eventually(lambda: len(calls(log)) == 1, "the assertion is held")
    daemon.kill()
    daemon.wait()
    eventually(lambda: calls(log)[-1] == "ended", "it is let go")


def test_missing_program_is_no_trouble(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    awake = Awake("linux")
    with caplog.at_level("INFO"):
        awake.hold(True)
        awake.hold(True)
    assert not awake.is_held
    assert caplog.text.count("nothing here keeps the machine awake") == 1


def test_program_that_is_refused_is_not_started_again_and_again(log: Path) -> None:
    (log.parent / "bin" / "systemd-inhibit").write_text(SCRIPT.format(log=log, body="exit 1"))
    awake = Awake("linux")

    def is_let_go() -> bool:
        awake.hold(True)
        return not awake.is_held

    eventually(is_let_go, "the refusal is noticed")
    awake.hold(True)
    assert not awake.is_held
    assert len(calls(log)) == 1

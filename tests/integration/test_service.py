"""The service for real: what was installed is started, serves, is killed, started again, and is gone after uninstall.

launchctl and systemctl are stand-ins that read the installed file and run what it says; the program, its daemon and
its crashes are real.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.starts import MAX_STARTS
from tests.daemon_harness import drop, eventually, jobs_of
from tests.fake_service_control import ServiceControl

ROOT = Path(__file__).parents[2]
PROGRAM = f"""#!{sys.executable}
import os, sys
sys.path.insert(0, {str(ROOT)!r})
os.geteuid = lambda: 501  # a service of root's own is refused, and tests may run as root
from rvc_batch.cli import main
main()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "installed" / "rvc-batch"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


@pytest.fixture
def control(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceControl]:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    (tmp_path / "person").mkdir()
    control = ServiceControl(tmp_path / "fake", home, monkeypatch)
    control.configure(is_real=True, unit=str(tmp_path / "person/.config/systemd/user/rvc-batch.service"))
    yield control
    pid = control.remembers.get("pid")
    if isinstance(pid, int):
        subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


def service(program: Path, home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), "--home", str(home.root), "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("manager", ["launchd", "systemd"])
def test_service_is_installed_serves_survives_a_kill_and_is_removed(
    manager: str, home: Home, program: Path, control: ServiceControl
) -> None:
    installed = service(program, home, "install", "--manager", manager)
    assert installed.returncode == 0, installed.stderr
    pid = control.remembers["pid"]
    assert isinstance(pid, int)
    assert f"ready: pid {pid}" in installed.stdout
    assert "warning: the service is up, but the worker cannot start: E_MODEL_MISSING" in installed.stdout

    shown = service(program, home, "status", "--manager", manager, "--json")
    assert shown.returncode == 0, shown.stdout
    assert json.loads(shown.stdout)["service"]["pid"] == pid
    drop(home, "bad name/take.wav")
    eventually(lambda: len(jobs_of(home)) == 1, "the service takes the file")
    eventually(lambda: jobs_of(home)[0].state is JobState.FAILED, "an unknown voice is a failed job")

    again = service(program, home, "install", "--manager", manager)
    assert "installed and running already" in again.stdout
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: service(program, home, "status", "--manager", manager).returncode == 1, "the kill is noticed")
    started = service(program, home, "restart", "--manager", manager)
    assert started.returncode == 0, started.stderr
    assert control.remembers["pid"] != pid
    assert "serving" in service(program, home, "logs", "--manager", manager).stdout

    removed = service(program, home, "uninstall", "--manager", manager)
    assert removed.returncode == 0, removed.stderr
    assert "pid" not in control.remembers
    assert not (home.state / "daemon.json").exists()
    assert not (home.state / "last_start_error.json").exists()
    assert len(jobs_of(home)) == 1


def test_service_with_bad_settings_is_rolled_back_with_the_reason(
    home: Home, program: Path, control: ServiceControl
) -> None:
    home.config_file.write_text("[watch]\ndepth = 'deep'\n")
    refused = service(program, home, "install", "--manager", "launchd")
    assert refused.returncode == 78
    assert "watch.depth" in refused.stderr
    assert control.calls() == []

    home.config_file.unlink()
    home.database.write_bytes(b"not a database" * 1000)
    refused = service(program, home, "install", "--manager", "launchd")
    assert refused.returncode == 1
    assert "E_SERVICE: start 1 of the service failed: E_DATABASE" in refused.stderr
    assert control.remembers == {}
    assert not list((home.root.parent / "person/Library/LaunchAgents").iterdir())


def test_whole_program_ends_its_crash_loop(home: Home) -> None:
    home.config_file.write_text("depth = 1\n")
    command = [sys.executable, "-m", "rvc_batch", "--home", str(home.root), "run", "--service"]
    codes = [subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode for _ in range(MAX_STARTS)]
    assert codes == [78, 78, 78, 78, 0]
    record = json.loads((home.state / "last_start_error.json").read_text())
    assert record["has_given_up"]
    assert "depth" in record["message"]


def test_daemon_tells_systemd_that_it_is_ready_and_feeds_the_watchdog(home: Home, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        command = [sys.executable, "-m", "rvc_batch", "--home", str(home.root), "run", "--service"]
        daemon = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        try:
            assert [heard.recv(100) for _ in range(4)] == [b"READY=1", *[b"WATCHDOG=1"] * 3]
            assert (home.state / "daemon.json").exists()
            daemon.send_signal(signal.SIGTERM)
            _, said = daemon.communicate(timeout=30)
        finally:
            daemon.kill()
            daemon.wait()
    assert (daemon.returncode, said) == (0, b"")
    assert not (home.state / "last_start_error.json").exists()

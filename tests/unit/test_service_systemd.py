"""The choreography with systemctl."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvc_batch.errors import ServiceFailed
from rvc_batch.home import Home
from rvc_batch.service.control import Clock
from rvc_batch.service.definition import Account, Definition
from rvc_batch.service.install import Installation
from rvc_batch.service.machine import RealMachine
from rvc_batch.service.systemd import Systemd
from tests.fake_service_control import ServiceControl
from tests.queue_fakes import FakeClock

UNIT = "rvc-batch.service"
STOPPED = [f"systemctl --user {verb} {UNIT}" for verb in ("stop", "disable", "reset-failed")]
STARTED = [
    "systemctl --user daemon-reload",
    f"systemctl --user enable {UNIT}",
    f"systemctl --user reset-failed {UNIT}",
    f"systemctl --user start --no-block {UNIT}",
]


class Box:
    """One Linux machine with one service on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = Home(folder / "home")
        self.home.create()
        self.control = ServiceControl(folder / "fake", self.home, monkeypatch)
        account = Account(name="anna", uid=os.geteuid(), gid=os.getgid(), group="anna", folder=folder / "anna")
        self.definition = Definition(
            program=folder / "bin" / "rvc-batch", home=self.home, account=account, is_system=False
        )
        self.said: list[str] = []
        slept = FakeClock()
        self.systemd = Systemd(self.definition, RealMachine(), self.said.append)
        clock = Clock(monotonic=slept, sleep=slept.step)
        self.service = Installation(self.systemd, RealMachine(), self.said.append, clock)
        self.control.configure(unit=str(self.systemd.file))


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def test_install_stops_the_old_one_reloads_enables_and_starts(box: Box) -> None:
    box.service.install()
    assert box.control.calls() == STOPPED + STARTED
    assert box.said == [f"ready: pid {os.getpid()}, worker idle", f"installed: {box.systemd.file}"]
    assert box.service.status().trouble == ""
    box.service.install()
    assert box.control.calls() == []


def test_account_that_does_not_linger_is_told_how(box: Box) -> None:
    box.control.reply("loginctl", (0, "Linger=no"))
    box.service.install()
    assert box.said[0].endswith("`loginctl enable-linger anna` keeps it")


def test_stop_start_restart_and_uninstall(box: Box) -> None:
    box.service.install()
    box.control.calls()
    box.service.stop()
    assert box.control.calls() == [f"systemctl --user stop {UNIT}"]
    assert box.service.status().trouble == "not running; `rvc-batch service start`"
    box.service.start()
    assert box.control.calls() == STARTED[2:]
    box.control.reply("systemctl --user show", (0, "LoadState=loaded\nMainPID=4711\n"))  # the one that is stopped
    box.service.restart()
    assert box.control.calls() == [STARTED[2], f"systemctl --user restart --no-block {UNIT}"]
    box.service.uninstall()
    assert box.control.calls() == [*STOPPED, "systemctl --user daemon-reload"]
    assert not box.systemd.file.exists()
    assert box.service.status().trouble == "not installed; `rvc-batch service install`"


def test_missing_bus_is_an_error_with_the_words_of_systemd(box: Box) -> None:
    box.control.reply("systemctl --user stop", *[(1, "Failed to connect to bus: No medium found")] * 2)
    with pytest.raises(ServiceFailed, match="systemctl stop answered 1: Failed to connect to bus"):
        box.service.install()
    assert not box.systemd.file.exists()
    assert box.control.calls() == STOPPED[:1]


def test_failed_unit_is_rolled_back_at_once(box: Box) -> None:
    failed = "LoadState=loaded\nActiveState=failed\nMainPID=0\nResult=exit-code\nExecMainStatus=78\n"
    box.control.configure(is_heard=False)
    box.control.reply("systemctl --user show", (0, "LoadState=not-found\n"), *[(0, failed)] * 3)
    with pytest.raises(ServiceFailed, match="failed, result exit-code, last exit status 78"):
        box.service.install()
    assert not box.systemd.file.exists()
    assert box.control.calls() == [*STOPPED, *STARTED, *STOPPED, "systemctl --user daemon-reload"]

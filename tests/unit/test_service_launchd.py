"""The choreography with launchctl: order, waiting, domains, and what each exit code means."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rvc_batch.errors import ServiceFailed
from rvc_batch.home import Home
from rvc_batch.service.control import Clock
from rvc_batch.service.definition import LABEL, Account, Definition
from rvc_batch.service.install import Installation
from rvc_batch.service.launchd import Launchd
from rvc_batch.service.machine import RealMachine
from tests.fake_service_control import ServiceControl
from tests.queue_fakes import FakeClock

UID = 501
GUI, USER = f"gui/{UID}", f"user/{UID}"


class Box:
    """One Mac with one service on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, console: int | None = UID) -> None:
        self.home = Home(folder / "home")
        self.home.create()
        self.control = ServiceControl(folder / "fake", self.home, monkeypatch)
        account = Account(name="anna", uid=UID, gid=os.getgid(), group="staff", folder=folder / "anna")
        account.folder.mkdir()
        self.definition = Definition(
            program=folder / "bin" / "rvc-batch", home=self.home, account=account, is_system=False
        )
        monkeypatch.setattr(os, "geteuid", lambda: UID)  # so that folders are not given away
        self.console = console
        self.said: list[str] = []
        self.slept = FakeClock()
        self.file = account.folder / "Library/LaunchAgents" / f"{LABEL}.plist"

    @property
    def launchd(self) -> Launchd:
        clock = Clock(monotonic=self.slept, sleep=lambda seconds: self.slept.step(10 * seconds))
        return Launchd(self.definition, RealMachine(), self.said.append, console_uid=lambda: self.console, clock=clock)

    @property
    def service(self) -> Installation:
        clock = Clock(monotonic=self.slept, sleep=lambda seconds: self.slept.step(10 * seconds))
        return Installation(self.launchd, RealMachine(), self.said.append, clock)

    def set_up(self, domain: str) -> list[str]:
        return [f"launchctl enable {domain}/{LABEL}", f"launchctl bootstrap {domain} {self.file}"]


TEAR_DOWN = [f"launchctl bootout {GUI}/{LABEL}", f"launchctl bootout {USER}/{LABEL}"]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def test_install_boots_out_then_enables_then_bootstraps_and_waits_until_ready(box: Box) -> None:
    box.service.install()
    assert box.control.calls() == TEAR_DOWN + box.set_up(GUI)
    assert box.said == [f"ready: pid {os.getpid()}, worker idle", f"installed: {box.file}"]
    assert box.file.read_bytes() == box.launchd.content()
    assert box.file.stat().st_mode & 0o777 == 0o644
    assert list(box.file.parent.iterdir()) == [box.file]
    assert box.service.status().trouble == ""
    assert box.service.status().domain == GUI


def test_second_install_changes_nothing(box: Box) -> None:
    box.service.install()
    box.control.calls()
    box.service.install()
    assert box.control.calls() == []
    assert box.said[-1].startswith("installed and running already")


def test_old_file_on_disk_is_refreshed_and_the_service_started_anew(box: Box) -> None:
    box.service.install()
    old = box.file.read_bytes()
    box.definition = replace(box.definition, umask=0o002)
    assert "not what this version would write" in box.service.status().trouble
    box.control.calls()
    box.service.install()
    assert box.control.calls() == TEAR_DOWN + box.set_up(GUI)
    assert box.file.read_bytes() == box.launchd.content() != old
    assert box.said[-1] == f"refreshed: {box.file}"


def test_bootout_in_progress_is_polled_until_the_service_is_gone(box: Box) -> None:
    box.control.reply(f"launchctl bootout {GUI}", (36, "Operation now in progress"))
    box.control.reply(f"launchctl print {GUI}", (0, "pid = 1"), (0, "pid = 1"), (113, "Could not find service"))
    box.launchd.unload()
    calls = box.control.calls("launchctl print")
    assert calls == [TEAR_DOWN[0], *[f"launchctl print {GUI}/{LABEL}"] * 3, TEAR_DOWN[1]]


def test_service_that_does_not_end_is_an_error_and_not_a_hang(box: Box) -> None:
    box.control.reply(f"launchctl bootout {GUI}", (36, ""))
    box.control.reply(f"launchctl print {GUI}", *[(0, "pid = 1")] * 200)
    with pytest.raises(ServiceFailed, match="still there 70 s after bootout"):
        box.launchd.unload()


@pytest.mark.parametrize("code", [3, 113, 125])
def test_service_that_is_not_there_is_no_error(box: Box, code: int) -> None:
    box.control.reply("launchctl bootout", (code, "no"), (code, "no"))
    box.launchd.unload()
    assert box.control.calls("launchctl print") == TEAR_DOWN


def test_unclear_answer_to_bootout_is_believed_if_the_service_is_gone(box: Box) -> None:
    box.control.reply("launchctl bootout", (5, "Boot-out failed: 5"), (3, ""))
    box.launchd.unload()
    box.control.reply("launchctl bootout", (5, "Boot-out failed: 5"))
    box.control.reply("launchctl print", (0, "pid = 1"))
    with pytest.raises(ServiceFailed, match="bootout answered 5: Boot-out failed: 5"):
        box.launchd.unload()


@pytest.mark.parametrize("code", [5, 125])
def test_domain_that_is_not_there_is_replaced_with_a_warning(box: Box, code: int) -> None:
    box.control.reply(f"launchctl bootstrap {GUI}", (code, "Bootstrap failed"))
    box.service.install()
    assert box.control.calls() == TEAR_DOWN + box.set_up(GUI) + box.set_up(USER)
    assert any(line.startswith("warning: nobody is logged in at the screen") for line in box.said)
    assert box.service.status().domain == USER


def test_over_ssh_the_domain_of_the_screen_is_not_even_tried(box: Box) -> None:
    box.console = 0
    box.service.install()
    assert box.control.calls() == TEAR_DOWN + box.set_up(USER)


@pytest.mark.parametrize("code", [1, 37])
def test_any_other_refusal_is_final_and_rolled_back(box: Box, code: int) -> None:
    box.control.reply("launchctl bootstrap", (code, "no"))
    with pytest.raises(ServiceFailed, match=f"launchctl bootstrap answered {code}: no"):
        box.service.install()
    assert not box.file.exists()
    assert box.control.calls() == TEAR_DOWN + box.set_up(GUI) + TEAR_DOWN


def test_refusal_in_both_domains_is_rolled_back(box: Box) -> None:
    box.control.reply("launchctl bootstrap", (5, "first"), (5, "second"))
    with pytest.raises(ServiceFailed, match="second"):
        box.service.install()
    assert not box.file.exists()


def test_system_service_knows_one_domain_and_nothing_else_is_tried(box: Box) -> None:
    box.definition = replace(box.definition, is_system=True)
    box.control.reply("launchctl bootstrap", (5, "no"))
    launchd = box.launchd
    assert launchd.file == Path("/Library/LaunchDaemons") / f"{LABEL}.plist"
    with pytest.raises(ServiceFailed):
        launchd.load()
    assert box.control.calls() == [
        f"launchctl enable system/{LABEL}",
        f"launchctl bootstrap system {launchd.file}",
    ]


def test_plist_that_plutil_refuses_never_gets_its_name(box: Box) -> None:
    box.control.reply("plutil", (1, "Unexpected character"))
    with pytest.raises(ServiceFailed, match=r"plutil -lint refuses the new .*: Unexpected character"):
        box.service.install()
    assert list(box.file.parent.iterdir()) == []
    assert "bootstrap" not in "".join(box.control.calls())


def test_stop_start_restart_and_uninstall(box: Box) -> None:
    box.service.install()
    box.control.calls()
    box.service.stop()
    assert box.control.calls() == TEAR_DOWN
    assert box.file.exists()
    assert "does not know it" in box.service.status().trouble
    box.service.start()
    assert box.control.calls() == box.set_up(GUI)
    box.service.start()
    assert box.control.calls() == []
    box.control.reply(f"launchctl print {GUI}", (0, "\tstate = running\n\tpid = 4711\n"))  # the one that is killed
    box.service.restart()
    assert box.control.calls() == [f"launchctl kickstart -k {GUI}/{LABEL}"]
    box.service.uninstall()
    assert box.control.calls() == TEAR_DOWN
    assert not box.file.exists()
    box.service.uninstall()
    assert box.home.inbox.is_dir()


def test_exit_code_of_a_dead_service_is_shown(box: Box) -> None:
    box.service.install()
    box.control.reply(f"launchctl print {GUI}", (0, "\tstate = not running\n\tlast exit code = 78: EX_CONFIG\n"))
    (box.home.state / "daemon.json").unlink()
    assert box.service.status().trouble.startswith("not running, last exit code 78: EX_CONFIG")

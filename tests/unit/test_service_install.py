"""An installation is believed only when the daemon says so; otherwise what was there before is there again."""

from __future__ import annotations

import grp
import json
import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from rvc_batch.errors import ServiceFailed, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.lock import FileLock
from rvc_batch.service import choose
from rvc_batch.service.choose import Choice, ControlName, environment_warnings
from rvc_batch.service.definition import Account, privacy_warnings, service_account
from rvc_batch.service.machine import RealMachine
from rvc_batch.service.program import find_program
from rvc_batch.service.tail import tail
from tests.unit.test_service_launchd import TEAR_DOWN, Box


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def log(box: Box, text: str) -> None:
    (box.home.logs / "rvc-batch.log").write_text(text)


# --- roll back ---


def test_daemon_that_never_speaks_is_rolled_back_with_the_last_twenty_lines_of_the_log(box: Box) -> None:
    box.control.configure(is_heard=False)
    log(box, "".join(f"line {n}\n" for n in range(50)))
    with pytest.raises(ServiceFailed, match="not ready within 60 s") as caught:
        box.service.install()
    assert str(caught.value).splitlines()[-20:] == [f"line {n}" for n in range(30, 50)]
    assert not box.file.exists()
    assert box.control.calls() == TEAR_DOWN + box.set_up("gui/501") + TEAR_DOWN
    assert box.control.remembers == {}


def test_what_launchd_captured_is_shown_too(box: Box) -> None:
    box.control.configure(is_heard=False)
    captured = box.definition.account.folder / "Library/Logs/rvc-batch/launchd.log"
    captured.parent.mkdir(parents=True)
    captured.write_text("dyld: Library not loaded\n")
    with pytest.raises(ServiceFailed, match="dyld: Library not loaded"):
        box.service.install()


def test_failed_refresh_brings_the_old_service_back(box: Box) -> None:
    box.service.install()
    old = box.file.read_bytes()
    box.definition = replace(box.definition, umask=0o002)
    box.control.reply("launchctl bootstrap", (1, "no"))
    with pytest.raises(ServiceFailed, match="bootstrap answered 1"):
        box.service.install()
    assert box.file.read_bytes() == old
    assert box.control.remembers["domain"] == "gui/501"


def test_reason_that_the_daemon_wrote_down_ends_the_wait_at_once(box: Box) -> None:
    box.control.configure(is_heard=False)
    record = {"version": 1, "starts": 1, "started_at": 9e9, "pid": 1, "code": "E_CONFIG", "message": "line 3: depth"}
    (box.home.state / "last_start_error.json").write_text(json.dumps(record))
    before = box.slept.now
    with pytest.raises(ServiceFailed, match="start 1 of the service failed: E_CONFIG: line 3: depth"):
        box.service.install()
    assert box.slept.now == before


def test_reason_of_an_earlier_start_is_not_taken_for_this_one(box: Box) -> None:
    box.control.configure(is_heard=False)
    record = {"version": 1, "starts": 1, "started_at": 1.0, "pid": 1, "code": "E_CONFIG", "message": "line 3: depth"}
    (box.home.state / "last_start_error.json").write_text(json.dumps(record))
    with pytest.raises(ServiceFailed, match="not ready within 60 s"):
        box.service.install()


def test_roll_back_that_fails_does_not_hide_the_first_error(box: Box) -> None:
    box.control.reply("launchctl bootstrap", (1, "the first"))
    box.control.reply("launchctl bootout", (3, ""), (3, ""), (1, "the second"))
    box.control.reply("launchctl print gui", (113, ""), (0, "pid = 1"))
    with pytest.raises(ServiceFailed, match="the first"):
        box.service.install()
    assert box.said[-1] == "warning: that failed, too: launchctl bootout answered 1: the second"


# --- ready ---


def test_worker_that_cannot_start_is_a_warning_because_the_daemon_waits_for_what_is_missing(box: Box) -> None:
    beat = dict(box.control.config["heartbeat"])  # type: ignore[call-overload]
    trouble = "the worker cannot start: E_MODEL_MISSING: models/rmvpe.pt"
    box.control.configure(heartbeat=beat | {"worker": {"state": "stopped"}, "last_error": trouble})
    box.service.install()
    assert box.said[-2:] == [f"warning: the service is up, but {trouble}", f"installed: {box.file}"]


def test_worker_that_warms_up_for_a_minute_is_waited_for_and_then_taken_as_it_is(box: Box) -> None:
    beat = dict(box.control.config["heartbeat"])  # type: ignore[call-overload]
    box.control.configure(heartbeat=beat | {"worker": {"state": "warming"}})
    before = box.slept.now
    box.service.install()
    assert box.slept.now - before >= 60
    assert box.said[0] == f"ready: pid {os.getpid()}, worker warming"


def test_what_the_self_test_found_inside_the_service_is_said(box: Box) -> None:
    beat = dict(box.control.config["heartbeat"])  # type: ignore[call-overload]
    fault = {"check": "outbox/", "level": "fault", "what": "outbox cannot take a file", "remedy": "grant it"}
    done = {"started_at": 0.0, "ended_at": 1.0, "checking": "", "findings": [fault]}
    box.control.configure(heartbeat=beat | {"self_test": done})
    box.service.install()
    assert "fault: outbox/: outbox cannot take a file; grant it" in box.said


def test_self_test_is_waited_for_and_one_that_hangs_is_said_to(box: Box) -> None:
    beat = dict(box.control.config["heartbeat"])  # type: ignore[call-overload]
    hanging = {"started_at": 0.0, "ended_at": None, "checking": "inbox/", "findings": []}
    box.control.configure(heartbeat=beat | {"self_test": hanging})
    before = box.slept.now
    box.service.install()
    assert box.slept.now - before >= 60
    assert "warning: the self-test has not ended yet; `rvc-batch status` shows it" in box.said


def test_heartbeat_of_another_process_is_not_readiness(box: Box) -> None:
    box.control.configure(pid=os.getppid())
    with pytest.raises(ServiceFailed, match="not ready"):
        box.service.install()


def test_process_that_should_have_been_replaced_is_not_readiness(box: Box) -> None:
    box.service.install()
    box.control.reply("launchctl kickstart", (0, ""))  # and nothing happens
    with pytest.raises(ServiceFailed, match="not ready within 60 s"):
        box.service.restart()
    assert box.file.exists()


def test_daemon_in_a_terminal_is_not_fought_over(box: Box) -> None:
    with FileLock(box.home.state / "daemon.lock", wait=False):
        with pytest.raises(ServiceFailed, match=rf"not this service .* \(pid {os.getpid()}\); stop it first"):
            box.service.install()
        assert box.control.calls() == []
        assert not box.file.exists()


def test_start_without_a_file_says_install_first(box: Box) -> None:
    for verb in (box.service.start, box.service.stop, box.service.restart):
        with pytest.raises(ServiceFailed, match="`rvc-batch service install` first"):
            verb()


# --- which program ---


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_link_in_a_stable_folder_is_used_and_never_resolved(tmp_path: Path) -> None:
    stable = tmp_path / "local" / "bin"
    stable.mkdir(parents=True)
    real = executable(tmp_path / "Cellar" / "0.1.0" / "bin" / "rvc-batch")
    (stable / "rvc-batch").symlink_to(real)
    python = tmp_path / "Cellar" / "0.1.0" / "bin" / "python"
    for started_as in (stable / "rvc-batch", real):
        assert find_program(started_as, python, (stable,)) == (stable / "rvc-batch", [])


def test_venv_only_is_explained_with_the_command_that_helps(tmp_path: Path) -> None:
    stable = tmp_path / "local" / "bin"
    real = executable(tmp_path / ".venv" / "bin" / "rvc-batch")
    executable(stable / "rvc-batch")  # another installation
    program, warnings = find_program(tmp_path / "rvc_batch" / "__main__.py", real.parent / "python", (stable,))
    assert program == real
    assert len(warnings) == 1
    assert f"ln -s {real} {stable}/rvc-batch" in warnings[0]


def test_checkout_without_an_installed_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match="no installed command"):
        find_program(tmp_path / "rvc_batch" / "__main__.py", tmp_path / "python", ())


# --- whose ---


def test_options_that_do_not_go_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    for choice in (Choice(home=home, is_system=True), Choice(home=home, user="anna")):
        with pytest.raises(SettingsInvalid, match="go together"):
            choose.choose(choice, print, is_install=True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SettingsInvalid, match="this is root"):
        choose.choose(Choice(home=home), print, is_install=True)


def test_system_service_needs_an_ordinary_user_with_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match="expected a user of this machine"):
        service_account("no-such-user")
    with pytest.raises(SettingsInvalid, match="administrator"):
        service_account("root")
    entry = pwd.struct_passwd(("box", "x", 600, 600, "", str(tmp_path / "box"), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    with pytest.raises(SettingsInvalid, match="is missing"):
        service_account("box")
    (tmp_path / "box").mkdir()
    assert service_account("box") == Account(name="box", uid=600, gid=600, group="600", folder=tmp_path / "box")
    admins = grp.struct_group(("admin", "*", 80, ["root", "box"]))
    monkeypatch.setattr(grp, "getgrnam", lambda name: admins)
    with pytest.raises(SettingsInvalid, match="administrator"):
        service_account("box")


def test_system_service_does_not_live_in_the_home_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(name="box", uid=600, gid=600, group="box", folder=tmp_path / "box")
    monkeypatch.setattr(choose, "service_account", lambda name: account)
    monkeypatch.setattr(choose, "this_program", lambda: (Path("/usr/local/bin/rvc-batch"), []))
    said: list[str] = []
    given = Choice(
        home=Home(tmp_path / "root"),
        is_home_given=False,
        is_system=True,
        user="box",
        control=ControlName.LAUNCHD,
        is_dry=True,
    )
    choose.choose(given, said.append, is_install=True).install()
    text = "\n".join(said)
    assert f"<string>{account.folder / 'rvc-batch'}</string>" in text
    assert str(tmp_path / "root") not in text
    assert not account.folder.exists()
    choose.choose(replace(given, is_home_given=True), said.append, is_install=True).install()
    assert f"<string>{tmp_path / 'root'}</string>" in "\n".join(said)


def test_folders_that_are_new_belong_to_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((path, uid, gid)))
    account = Account(name="box", uid=os.geteuid() + 1, gid=7, group="box", folder=tmp_path)
    RealMachine().make_folder(tmp_path / "a" / "b", account)
    assert given == [(tmp_path / "a", account.uid, 7), (tmp_path / "a" / "b", account.uid, 7)]


def test_folders_that_macos_closes_to_services_are_named(box: Box) -> None:
    folder = box.definition.account.folder
    for root in (folder / "Desktop/box", folder / "Library/Mobile Documents/box", Path("/Volumes/NAS/box")):
        assert len(privacy_warnings(replace(box.definition, home=Home(root)))) == 1
    assert privacy_warnings(box.definition) == []


def test_settings_of_the_shell_that_a_service_will_not_see_are_named() -> None:
    found = environment_warnings({"RVC_BATCH_WORKER__BACKEND": "torch", "RVC_BATCH_HOME": "/srv", "PATH": "/bin"})
    assert [line.split(" ")[0] for line in found] == ["RVC_BATCH_WORKER__BACKEND"]


def test_end_of_a_long_log_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1_000_000 + b"\nlast \xff\n")
    assert tail(path, 1) == ["last \ufffd"]
    assert tail(tmp_path / "none", 5) == []

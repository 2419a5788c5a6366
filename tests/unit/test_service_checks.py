"""What `doctor` finds about service and machine, from answers of the system's programs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.status import ServiceFacts
from rvc_batch.service.checks import examine_service
from rvc_batch.service.definition import Account, current_account
from rvc_batch.service.machine import Answer

ME = current_account().name
PMSET = """\
System-wide power settings:
Currently in use:
 standby              0
 Sleep On Power Button 1
 autorestart          1
 displaysleep         10
 sleep                0 (sleep prevented by caffeinate)
"""
UPDATES = "defaults read /Library/Preferences/com.apple.SoftwareUpdate AutomaticallyInstallMacOSUpdates"
LOGIN = "defaults read /Library/Preferences/com.apple.loginwindow autoLoginUser"
WELL = {"pmset -g": PMSET, UPDATES: "0", "fdesetup status": "FileVault is Off.", LOGIN: ME}
AGENT = ServiceFacts(manager="launchd", is_system=False, file="/x.plist", user="")
DAEMON = ServiceFacts(manager="launchd", is_system=True, file="/x.plist", user="rvcbox")
UNIT = ServiceFacts(manager="systemd", is_system=False, file="/x.service", user="")


class FakeMachine:
    """Answers as told; what it was not told about fails as a program does that is not there."""

    is_dry = False

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers = answers

    def ask(self, *command: str) -> Answer:
        text = self._answers.get(" ".join(command))
        return Answer(127, f"{command[0]} is not installed") if text is None else Answer(0, text)

    def do(self, *command: str) -> Answer:
        raise AssertionError(f"doctor changes nothing, and not with {command}")

    def write(self, path: Path, data: bytes, *, lint: tuple[str, ...] = ()) -> None:
        raise AssertionError

    def remove(self, path: Path) -> None:
        raise AssertionError

    def make_folder(self, path: Path, owner: Account) -> None:
        raise AssertionError


def look(answers: dict[str, str], service: ServiceFacts | None, platform: str = "darwin") -> dict[str, Finding]:
    return {found.check: found for found in examine_service(FakeMachine(answers), service, platform=platform)}


def test_mac_that_is_set_up_well_has_no_warning() -> None:
    found = look(WELL, AGENT)
    assert set(found) == {"service", "sleep", "autorestart", "updates", "FileVault", "login"}
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert "starts when its user logs in" in found["service"].what


@pytest.mark.parametrize(
    ("change", "check", "what", "remedy"),
    [
        ({"pmset -g": PMSET.replace("sleep                0", "sleep               10")}, "sleep", "10", "-a sleep 0"),
        (
            {"pmset -g": PMSET.replace("autorestart          1", "autorestart  0")},
            "autorestart",
            "off",
            "autorestart 1",
        ),
        (
            {"pmset -g": PMSET.replace("sleep                0", "")},
            "sleep",
            "does not say",
            "pmset -a sleep 0",
        ),
        ({UPDATES: "1"}, "updates", "restart the machine", "-bool false"),
        ({"fdesetup status": "FileVault is On."}, "FileVault", "unlocks the disk", "turn it off"),
        ({"fdesetup status": ""}, "FileVault", "does not say", "turn it off"),
        ({LOGIN: "somebody"}, "login", "somebody is logged in", "--system --user NAME, or set automatic login"),
    ],
)
def test_each_thing_that_is_not_is_a_warning_with_the_command(
    change: dict[str, str], check: str, what: str, remedy: str
) -> None:
    found = look(WELL | change, AGENT)
    assert [name for name, finding in found.items() if finding.level is not Level.OK] == [check]
    assert what in found[check].what
    assert remedy in found[check].remedy


def test_mac_that_answers_nothing_is_all_warnings_and_no_error() -> None:
    levels = {name: finding.level for name, finding in look({}, AGENT).items()}
    assert levels.pop("service") is Level.OK
    assert set(levels.values()) == {Level.WARNING}


def test_service_of_the_machine_needs_no_login() -> None:
    found = look({name: text for name, text in WELL.items() if name != LOGIN}, DAEMON)
    assert "login" not in found
    assert found["service"].what == "launchd, runs as rvcbox with nobody logged in"


def test_automatic_login_is_not_recommended_where_the_disk_is_encrypted() -> None:
    answers = {name: text for name, text in WELL.items() if name != LOGIN} | {"fdesetup status": "FileVault is On."}
    assert "automatic login" not in look(answers, AGENT)["login"].remedy


@pytest.mark.parametrize(("answer", "level"), [("Linger=yes", Level.OK), ("Linger=no", Level.WARNING)])
def test_user_unit_wants_its_user_to_linger(answer: str, level: Level) -> None:
    found = look({f"loginctl show-user {ME} --property=Linger": answer}, UNIT, "linux")
    assert found["linger"].level is level
    assert set(found) == {"service", "linger"}


def test_nothing_is_asked_without_a_service_on_linux() -> None:
    assert list(look({}, None, "linux")) == ["service"]


def test_doctor_adds_these_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rvc_batch.home import Home
    from rvc_batch.jobs import doctor
    from tests.cli_harness import run

    only: Callable[..., object] = lambda *_, **__: iter([Finding("all", Level.OK, "well")])  # noqa: E731
    monkeypatch.setattr(doctor, "examine", only)
    shown = run(Home(tmp_path), "doctor").stdout
    assert "OK  service  none is installed" in shown

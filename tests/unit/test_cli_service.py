"""`rvc-batch service` hands its options on, prints what was said, and has help and JSON everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rvc_batch.cli import build_app
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.service import choose
from rvc_batch.service.choose import Choice, ControlName
from rvc_batch.service.install import ServiceStatus

VERBS = ("install", "uninstall", "start", "stop", "restart")
STATUS = ServiceStatus(
    control="launchd",
    file="/Users/anna/x.plist",
    is_installed=True,
    is_current=True,
    is_registered=True,
    domain="gui/501",
    pid=812,
    program="/p",
    trouble="",
)


class Recorded:
    """What the commands asked for."""

    def __init__(self) -> None:
        self.verbs: list[str] = []
        self.choices: list[Choice] = []
        self.found = STATUS

    def __getattr__(self, verb: str) -> Any:
        return lambda: self.verbs.append(verb)

    def status(self) -> ServiceStatus:
        return self.found

    def log_lines(self, count: int) -> list[str]:
        return [f"{count} lines", "\x1b[31m"]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()

    def chosen(choice: Choice, say: Any, *, is_install: bool) -> Recorded:
        recorded.choices.append(choice)
        say(f"installing: {is_install}")
        return recorded

    monkeypatch.setattr(choose, "choose", chosen)
    return recorded


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(), list(arguments))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_reaches_the_service_with_its_options(verb: str, recorded: Recorded, tmp_path: Path) -> None:
    options = ("--system", "--user", "box", "--manager", "systemd", "--dry-run", "--json")
    result = invoke("--home", str(tmp_path), "service", verb, *options)
    assert result.exit_code == 0, result.output
    assert recorded.verbs == [verb]
    assert recorded.choices == [
        Choice(
            home=Home(tmp_path),
            is_home_given=True,
            is_system=True,
            user="box",
            control=ControlName.SYSTEMD,
            is_dry=True,
        )
    ]
    assert json.loads(result.stdout) == {"version": 1, "dry_run": True, "said": [f"installing: {verb == 'install'}"]}


def test_home_that_was_not_given_is_known_as_such(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RVC_BATCH_HOME", raising=False)
    invoke("service", "start")
    monkeypatch.setenv("RVC_BATCH_HOME", "/srv/rvc")
    invoke("service", "start")
    assert [choice.is_home_given for choice in recorded.choices] == [False, True]


def test_unknown_manager_is_refused(recorded: Recorded) -> None:
    assert isinstance(invoke("service", "start", "--manager", "upstart").exception, SettingsInvalid)
    assert recorded.choices == []


def test_status_is_one_word_first_and_an_exit_code(recorded: Recorded) -> None:
    result = invoke("service", "status")
    assert result.stdout.splitlines()[1].startswith("OK   running")
    assert result.exit_code == 0
    recorded.found = STATUS.__class__(**{**STATUS.__dict__, "trouble": "not installed; do", "is_installed": False})
    result = invoke("service", "status")
    assert "DOWN   not installed; do" in result.stdout
    assert "x.plist (missing)" in result.stdout
    assert result.exit_code == 1


def test_logs_cannot_drive_the_terminal(recorded: Recorded) -> None:
    assert invoke("service", "logs", "--lines", "7").stdout.splitlines()[1:] == ["7 lines", "\\x1b[31m"]


@pytest.mark.parametrize("verb", [*VERBS, "status", "logs"])
def test_every_verb_has_help_json_and_a_place_in_the_documentation(verb: str) -> None:
    text = invoke("service", verb, "--help").stdout
    assert "--json" in text
    assert "--system" in text
    documentation = Path(__file__).parents[2] / "docs" / "operations.md"
    assert f"service {verb}" in documentation.read_text(encoding="utf-8")

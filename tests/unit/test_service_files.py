"""The plist and the unit files: every key has its value, none of the rejected ones is there, the tools accept them."""

from __future__ import annotations

import configparser
import os
import plistlib
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.service.definition import Account, Definition
from rvc_batch.service.launchd import plist
from rvc_batch.service.systemd import quoted, unit

FILES = Path(__file__).parent / "service_files"
ANNA = Account(name="anna", uid=501, gid=20, group="staff", folder=Path("/Users/anna"))
AGENT = Definition(
    program=Path("/Users/anna/.local/bin/rvc-batch"),
    home=Home(Path("/Users/anna/rvc-batch")),
    account=ANNA,
    is_system=False,
)
BOX = Account(name="rvcbox", uid=600, gid=600, group="rvcbox", folder=Path("/Users/rvcbox"))
DAEMON = Definition(
    program=Path("/opt/homebrew/bin/rvc-batch"),
    home=Home(Path("/Users/Shared/render box")),
    account=BOX,
    is_system=True,
    umask=0o002,
)
REJECTED_KEYS = {
    "WatchPaths",
    "QueueDirectories",
    "StartOnMount",
    "StartInterval",
    "Sockets",
    "inetdCompatibility",
    "AbandonProcessGroup",
    "LowPriorityIO",
    "Nice",
}


def written(definition: Definition) -> bytes:
    return plistlib.dumps(plist(definition), sort_keys=False)


def sections(text: str) -> dict[str, dict[str, Any]]:
    """Read a unit with configparser; a key that appears twice becomes one value per line."""
    parser = configparser.RawConfigParser(strict=False, dict_type=_Lines)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in parser.sections()}


class _Lines(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: object, value: object) -> None:
        old = self.get(key)
        super().__setitem__(key, [*old, *value] if isinstance(value, list) and isinstance(old, list) else value)


@pytest.mark.parametrize(("definition", "name"), [(AGENT, "agent.plist"), (DAEMON, "daemon.plist")])
def test_plist_is_the_recorded_one(definition: Definition, name: str) -> None:
    assert written(definition) == (FILES / name).read_bytes()


@pytest.mark.parametrize(("definition", "name"), [(AGENT, "user.service"), (DAEMON, "system.service")])
def test_unit_is_the_recorded_one(definition: Definition, name: str) -> None:
    assert unit(definition) == (FILES / name).read_text()


def test_agent_has_the_keys_that_were_chosen_and_no_others() -> None:
    log = "/Users/anna/Library/Logs/rvc-batch/launchd.log"
    assert plistlib.loads((FILES / "agent.plist").read_bytes()) == {
        "Label": "io.github.rvc-batch",
        "ProgramArguments": [
            "/Users/anna/.local/bin/rvc-batch",
            "--home",
            "/Users/anna/rvc-batch",
            "run",
            "--service",
        ],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": 60,
        "ProcessType": "Interactive",
        "EnvironmentVariables": {
            "PATH": "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONUTF8": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        },
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "HardResourceLimits": {"NumberOfFiles": 8192},
        "WorkingDirectory": "/Users/anna/rvc-batch/state",
        "Umask": 18,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "LimitLoadToSessionType": ["Aqua", "Background"],
    }


def test_daemon_runs_as_its_user_with_nobody_logged_in() -> None:
    agent, daemon = (plistlib.loads((FILES / name).read_bytes()) for name in ("agent.plist", "daemon.plist"))
    assert daemon.keys() - agent.keys() == {"UserName", "GroupName"}
    assert agent.keys() - daemon.keys() == {"LimitLoadToSessionType"}
    assert (daemon["UserName"], daemon["GroupName"], daemon["Umask"]) == ("rvcbox", "rvcbox", 2)
    assert daemon["EnvironmentVariables"]["HOME"] == "/Users/rvcbox"
    assert not REJECTED_KEYS & (agent.keys() | daemon.keys())


def test_plist_is_plain_xml_that_a_second_parser_reads() -> None:
    for name in ("agent.plist", "daemon.plist"):
        root = ET.fromstring((FILES / name).read_bytes())
        assert (root.tag, root.attrib) == ("plist", {"version": "1.0"})
        entries = list(root[0])
        assert [e.tag for e in entries[::2]] == ["key"] * (len(entries) // 2)
        assert {e.tag for e in root.iter()} <= {"plist", "dict", "key", "string", "array", "integer", "true", "false"}


def test_user_unit_has_the_directives_that_were_chosen_and_no_others() -> None:
    assert sections((FILES / "user.service").read_text()) == {
        "Unit": {
            "Description": "rvc-batch voice-conversion render box",
            "StartLimitIntervalSec": "300",
            "StartLimitBurst": "5",
        },
        "Service": {
            "Type": "notify",
            "WatchdogSec": "120",
            "ExecStart": "/Users/anna/.local/bin/rvc-batch --home /Users/anna/rvc-batch run --service",
            "Environment": "PYTHONUTF8=1\nPYTHONUNBUFFERED=1\nPYTHONFAULTHANDLER=1",
            "Restart": "on-failure",
            "RestartSec": "5",
            "RestartPreventExitStatus": "78",
            "KillSignal": "SIGTERM",
            "KillMode": "mixed",
            "TimeoutStopSec": "60",
            "OOMPolicy": "continue",
            "UMask": "0022",
            "NoNewPrivileges": "yes",
            "RestrictSUIDSGID": "yes",
        },
        "Install": {"WantedBy": "default.target"},
    }


def test_system_unit_adds_the_user_and_what_only_root_may_close() -> None:
    user, system = (sections((FILES / name).read_text())["Service"] for name in ("user.service", "system.service"))
    assert {key: system[key] for key in system.keys() - user.keys()} == {
        "User": "rvcbox",
        "PrivateTmp": "yes",
        "ProtectSystem": "full",
        "ProtectKernelTunables": "yes",
        "ProtectKernelModules": "yes",
        "ProtectKernelLogs": "yes",
    }
    assert not user.keys() - system.keys()
    assert system["UMask"] == "0002"
    assert not {"MemoryDenyWriteExecute", "ProtectHome"} & system.keys()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("/srv/rvc", "/srv/rvc"),
        ("/srv/render box", '"/srv/render box"'),
        ('/srv/a"b\\c', '"/srv/a\\"b\\\\c"'),
        ("/srv/100%", "/srv/100%%"),
        ("/srv/$HOME", '"/srv/$$HOME"'),
        ("/srv/日本", '"/srv/日本"'),
        ("", '""'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(argument: str, expected: str) -> None:
    assert quoted(argument) == expected


def test_path_with_a_line_break_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="cannot be written into a unit file"):
        quoted("/srv/a\nExecStartPre=/bin/rm")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: not verified")
@pytest.mark.parametrize("definition", [AGENT, DAEMON], ids=["user", "system"])
def test_systemd_accepts_the_unit_without_a_word(definition: Definition, tmp_path: Path) -> None:
    program = tmp_path / "100% $HOME dir" / "rvc-batch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    account = replace(definition.account, name="root")
    file = tmp_path / "rvc-batch.service"
    file.write_text(unit(replace(definition, program=program, account=account)))
    scope = "--system" if definition.is_system else "--user"
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        ["systemd-analyze", scope, "verify", str(file)], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

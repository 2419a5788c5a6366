"""Which service serves a home is read from the files that the installer writes, and from nothing else."""

import plistlib
from pathlib import Path

import pytest

from rvc_batch.home import Home
from rvc_batch.service.definition import Account, Definition
from rvc_batch.service.launchd import plist
from rvc_batch.service.presence import installed_service
from rvc_batch.service.systemd import unit

PLACES = {
    ("launchd", True): "Library/LaunchDaemons/io.github.rvc-batch.plist",
    ("launchd", False): "Users/ann/Library/LaunchAgents/io.github.rvc-batch.plist",
    ("systemd", True): "etc/systemd/system/rvc-batch.service",
    ("systemd", False): "Users/ann/.config/systemd/user/rvc-batch.service",
}


def install(root: Path, manager: str, home: Home, *, is_system: bool) -> Path:
    account = Account(name="rvcbox", uid=1, gid=1, group="g", folder=root / "Users/ann")
    definition = Definition(program=Path("/bin/rvc-batch"), home=home, account=account, is_system=is_system)
    file = root / PLACES[manager, is_system]
    file.parent.mkdir(parents=True)
    file.write_bytes(plistlib.dumps(plist(definition)) if manager == "launchd" else unit(definition).encode())
    return file


@pytest.mark.parametrize(("manager", "is_system"), PLACES)
@pytest.mark.parametrize("name", ["box", "my 100% box & $HOME"])
def test_installed_service_is_found_with_the_command_that_starts_it(
    tmp_path: Path, manager: str, is_system: bool, name: str
) -> None:
    home = Home(tmp_path / name)
    file = install(tmp_path, manager, home, is_system=is_system)
    found = installed_service(home, person=tmp_path / "Users/ann", root=tmp_path)
    assert found is not None
    assert (found.manager, found.is_system, found.file) == (manager, is_system, str(file))
    system = "sudo rvc-batch service start --system --user rvcbox"
    assert found.command("start") == (system if is_system else "rvc-batch service start")


def test_service_of_another_home_is_not_ours(tmp_path: Path) -> None:
    install(tmp_path, "launchd", Home(tmp_path / "other"), is_system=False)
    assert installed_service(Home(tmp_path / "box"), person=tmp_path / "Users/ann", root=tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"<plist>", b"[Service]\nExecStart=x --home\n", b"ExecStart='"])
def test_files_that_are_not_understood_are_no_service(tmp_path: Path, content: bytes) -> None:
    for place in PLACES.values():
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(content)
    assert installed_service(Home(tmp_path / "box"), person=tmp_path / "Users/ann", root=tmp_path) is None

"""What a service runs, as whom and where: the facts that the plist and the unit file say in their own words."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home

LABEL = "io.github.rvc-batch"
UNIT = "rvc-batch.service"
STOP_SECONDS = 60  # a segment and its publishing must fit; launchd's default is 20
THROTTLE_SECONDS = 30
ENVIRONMENT = {
    "PYTHONUTF8": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",
}  # never a secret: anyone may read it
TCC_FOLDERS = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents")


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    group: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One service. `account` is whom it runs as."""

    program: Path
    home: Home
    account: Account
    is_system: bool
    umask: int = 0o022

    @property
    def arguments(self) -> list[str]:
        """The command line of the service."""
        return [str(self.program), "--home", str(self.home.root), "run", "--service"]


def current_account() -> Account:
    """Return the user who runs this command."""
    entry = pwd.getpwuid(os.getuid())
    return Account(
        name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, group=_group(entry.pw_gid), folder=Path.home()
    )


def service_account(name: str) -> Account:
    """Return the user that a system service is to run as.

    Raises:
        SettingsInvalid: no such user, no home folder, or one with the rights of an administrator.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError as e:
        raise SettingsInvalid(f"--user is {name!r}, expected a user of this machine; create that user first") from e
    if entry.pw_uid == 0 or _is_admin(entry):
        raise SettingsInvalid(
            f"--user is {name!r}, an administrator; a system service needs a user without rights, create one for it"
        )
    if not Path(entry.pw_dir).is_dir():
        raise SettingsInvalid(f"--user is {name!r}, whose home folder {entry.pw_dir} is missing; create it first")
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, group=_group(entry.pw_gid), folder=Path(entry.pw_dir))


def privacy_warnings(definition: Definition) -> list[str]:
    """Return what macOS will refuse a service though it lets the same user's terminal."""
    root = definition.home.root
    closed = [definition.account.folder / name for name in TCC_FOLDERS] + [Path("/Volumes")]
    return [
        f"{root} is below {folder}: macOS lets no service in there until it is granted in Privacy & Security, "
        "and the grant is lost at an upgrade; choose a --home elsewhere"
        for folder in closed
        if root.is_relative_to(folder)
    ]


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_admin(entry: pwd.struct_passwd) -> bool:
    """Is the user in the group that macOS gives administrators?"""
    try:
        admin = grp.getgrnam("admin")
    except KeyError:
        return False
    return entry.pw_gid == admin.gr_gid or entry.pw_name in admin.gr_mem

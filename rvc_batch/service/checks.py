"""What the service needs of the machine around it: `rvc-batch doctor` asks, and says how to set it.

Written from pmset(1), fdesetup(8), defaults(1) and loginctl(1); the checks of macOS have not been run on macOS.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.status import ServiceFacts
from rvc_batch.service.definition import current_account
from rvc_batch.service.machine import Machine

UPDATES = ("/Library/Preferences/com.apple.SoftwareUpdate", "AutomaticallyInstallMacOSUpdates")
LOGIN = ("/Library/Preferences/com.apple.loginwindow", "autoLoginUser")


def examine_service(
    machine: Machine, service: ServiceFacts | None, *, platform: str = sys.platform
) -> Iterator[Finding]:
    """Yield what is found about the service and, on macOS, about the machine."""
    yield _installed(service)
    if platform == "darwin":
        yield from _power(machine)
        yield _updates(machine)
        encrypted = _file_vault(machine)
        yield encrypted
        if service is not None and not service.is_system:
            yield _automatic_login(machine, is_encrypted=encrypted.level is not Level.OK)
    elif service is not None and service.manager == "systemd" and not service.is_system:
        yield _linger(machine)


def _installed(service: ServiceFacts | None) -> Finding:
    if service is None:
        return Finding("service", Level.OK, "none is installed; `rvc-batch service install` installs one")
    if service.is_system:
        return Finding("service", Level.OK, f"{service.manager}, runs as {service.user} with nobody logged in")
    kind = "agent, starts when its user logs in" if service.manager == "launchd" else "of this user"
    return Finding("service", Level.OK, f"{service.manager}, {kind}: {service.file}")


def _power(machine: Machine) -> Iterator[Finding]:
    text = machine.ask("pmset", "-g").text
    wanted = {
        "sleep": ("0", "the machine sleeps when nobody uses it, and nothing is rendered then"),
        "autorestart": ("1", "after a power cut the machine stays off"),
    }
    for name, (value, what) in wanted.items():
        found = re.search(rf"^\s*{name}\s+(\d+)", text, re.MULTILINE)
        remedy = f"sudo pmset -a {name} {value}"
        if found is None:
            yield Finding(name, Level.WARNING, f"pmset does not say ({text.splitlines()[:1]})", remedy)
        elif found[1] != value and not (name == "autorestart" and found[1] != "0"):
            yield Finding(name, Level.WARNING, f"{name} is {found[1]}: {what}", remedy)
        else:
            yield Finding(name, Level.OK, f"{name} is {found[1]}")


def _updates(machine: Machine) -> Finding:
    answer = machine.ask("defaults", "read", *UPDATES)
    if answer.code == 0 and answer.text.strip() == "0":
        return Finding("updates", Level.OK, "macOS does not install updates by itself")
    what = "macOS may install updates by itself and restart the machine"
    return Finding("updates", Level.WARNING, what, f"sudo defaults write {' '.join(UPDATES)} -bool false")


def _file_vault(machine: Machine) -> Finding:
    text = machine.ask("fdesetup", "status").text
    if "FileVault is Off" in text:
        return Finding("FileVault", Level.OK, "off: the machine starts by itself")
    what = "FileVault is on: after a power cut nothing starts before somebody unlocks the disk"
    if "FileVault is On" not in text:
        what = f"fdesetup does not say whether FileVault is on ({text or 'no answer'})"
    return Finding("FileVault", Level.WARNING, what, "turn it off in Privacy & Security, or be there after a power cut")


def _automatic_login(machine: Machine, *, is_encrypted: bool) -> Finding:
    answer = machine.ask("defaults", "read", *LOGIN)
    user, here = answer.text.strip(), current_account().name
    if answer.code == 0 and user == here:
        return Finding("login", Level.OK, f"{user} is logged in automatically, and the agent starts")
    what = f"{user or 'nobody'} is logged in automatically" if answer.code == 0 else "nobody is logged in automatically"
    what += ": after a restart the agent waits for a login"
    remedy = "rvc-batch service uninstall; sudo rvc-batch service install --system --user NAME"
    if not is_encrypted:
        remedy += ", or set automatic login in Users & Groups"
    return Finding("login", Level.WARNING, what, remedy)


def _linger(machine: Machine) -> Finding:
    name = current_account().name
    answer = machine.ask("loginctl", "show-user", name, "--property=Linger")
    if answer.text == "Linger=yes":
        return Finding("linger", Level.OK, f"the services of {name} run without a login")
    return Finding("linger", Level.WARNING, f"the service ends when {name} logs out", f"loginctl enable-linger {name}")

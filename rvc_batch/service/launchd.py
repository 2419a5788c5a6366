"""launchd: a LaunchAgent for the person at the screen, or a LaunchDaemon that runs with nobody logged in.

The order of commands is the one that survives reinstalls: `enable` before `bootstrap`, because a disabled override
outlives the file; `bootout` polled until it is done, because it returns early. `load` and `unload` are never used.
Written from launchctl(1), launchd.plist(5) and what other projects reported; it has not been run on macOS.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rvc_batch.errors import ServiceFailed
from rvc_batch.service.control import Clock, Registration
from rvc_batch.service.definition import ENVIRONMENT, LABEL, STOP_SECONDS, THROTTLE_SECONDS, Definition
from rvc_batch.service.machine import Answer, Machine
from rvc_batch.service.tail import tail

PATH = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"  # launchd's own lacks the first two
OPEN_FILES = 8192  # launchd's default is 256
GONE = (3, 113)  # ESRCH; "could not find service"
NO_DOMAIN = 125  # "domain does not support specified action"
IN_PROGRESS = 36  # EINPROGRESS
NO_SESSION = (5, NO_DOMAIN)  # what bootstrap answers for gui/UID when nobody is logged in at the screen
POLL_SECONDS = 0.5
AGENTS = Path("Library/LaunchAgents")


class Launchd:
    """The service of one definition under launchd."""

    name = "launchd"

    def __init__(
        self,
        definition: Definition,
        machine: Machine,
        say: Callable[[str], None],
        *,
        console_uid: Callable[[], int | None],
        clock: Clock | None = None,
    ) -> None:
        self.definition = definition
        self._machine, self._say, self._console_uid, self._clock = machine, say, console_uid, clock or Clock()
        base = Path("/Library/LaunchDaemons") if definition.is_system else definition.account.folder / AGENTS
        self.file = base / f"{LABEL}.plist"

    def content(self) -> bytes:
        """Return the plist."""
        return plistlib.dumps(plist(self.definition), sort_keys=False)

    def place(self, data: bytes) -> None:
        """Write the plist after plutil had a look at it."""
        self._machine.make_folder(log_file(self.definition).parent, self.definition.account)
        self._machine.write(self.file, data, lint=("plutil", "-lint"))

    def forget(self) -> None:
        """Remove the plist."""
        self._machine.remove(self.file)

    def load(self) -> None:
        """Bootstrap the service where it can live.

        Raises:
            ServiceFailed: launchd refuses in every domain.
        """
        domains = self._domains()
        if not self.definition.is_system and self._console_uid() != self.definition.account.uid:
            domains = domains[1:]
        answer = Answer(0, "")
        for domain in domains:
            self._machine.do("launchctl", "enable", f"{domain}/{LABEL}")  # a domain that is missing says so below
            answer = self._machine.do("launchctl", "bootstrap", domain, str(self.file))
            if answer.code == 0:
                if domain.startswith("user/"):
                    self._say(
                        f"warning: nobody is logged in at the screen, so the service runs in {domain}; it may end when "
                        "you log out. For a box without a screen: sudo rvc-batch service install --system --user NAME"
                    )
                return
            if answer.code not in NO_SESSION:
                break
        raise _refused("bootstrap", answer)

    def unload(self) -> None:
        """Boot the service out of every domain it may be in, and wait.

        Raises:
            ServiceFailed: launchd refuses, or the service does not end.
        """
        for domain in self._domains():
            answer = self._machine.do("launchctl", "bootout", f"{domain}/{LABEL}")
            if self._machine.is_dry or answer.code in (*GONE, NO_DOMAIN):
                continue
            if answer.code in (0, IN_PROGRESS):
                self._wait_until_gone(domain)
            elif self._is_in(domain):
                raise _refused("bootout", answer)

    def start(self) -> None:
        """Start it; bootstrap it if it was stopped."""
        found = self.registration()
        if not found.is_registered:
            self.load()
        elif found.pid is None:
            self._kick(found.domain)

    def stop(self) -> None:
        """Boot it out; the file stays for the next login."""
        self.unload()

    def restart(self) -> None:
        """Kill it and start it again."""
        found = self.registration()
        if found.is_registered:
            self._kick(found.domain, "-k")
        else:
            self.load()

    def registration(self) -> Registration:
        """Ask launchd in every domain."""
        for domain in self._domains():
            answer = self._machine.ask("launchctl", "print", f"{domain}/{LABEL}")
            if answer.code == 0:
                pid = re.search(r"^\s*pid = (\d+)$", answer.text, re.MULTILINE)
                code = re.search(r"^\s*last exit code = (.+)$", answer.text, re.MULTILINE)
                return Registration(
                    is_registered=True,
                    domain=domain,
                    pid=int(pid[1]) if pid else None,
                    failure=f"not running, last exit code {code[1]}" if code and not pid else "",
                )
        return Registration(is_registered=False)

    def crash_lines(self, count: int) -> list[str]:
        """Return the end of what launchd captured."""
        return tail(log_file(self.definition), count)

    def _domains(self) -> tuple[str, ...]:
        uid = self.definition.account.uid
        return ("system",) if self.definition.is_system else (f"gui/{uid}", f"user/{uid}")

    def _is_in(self, domain: str) -> bool:
        return self._machine.ask("launchctl", "print", f"{domain}/{LABEL}").code == 0

    def _wait_until_gone(self, domain: str) -> None:
        patience = STOP_SECONDS + 10
        deadline = self._clock.monotonic() + patience
        while self._is_in(domain):
            if self._clock.monotonic() > deadline:
                raise ServiceFailed(f"{domain}/{LABEL} is still there {patience} s after bootout; try again, or reboot")
            self._clock.sleep(POLL_SECONDS)

    def _kick(self, domain: str, *options: str) -> None:
        answer = self._machine.do("launchctl", "kickstart", *options, f"{domain}/{LABEL}")
        if answer.code:
            raise _refused("kickstart", answer)


def log_file(definition: Definition) -> Path:
    """Return where launchd captures what the daemon says outside its own log."""
    return definition.account.folder / "Library/Logs/rvc-batch/launchd.log"


def plist(definition: Definition) -> dict[str, Any]:
    """Return the property list; each value has its reason in docs/operations.md."""
    environment = {"PATH": PATH, **ENVIRONMENT}
    log = str(log_file(definition))
    limits = {"NumberOfFiles": OPEN_FILES}
    keys: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": definition.arguments,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},  # a crash starts it again, a deliberate end does not
        "ThrottleInterval": THROTTLE_SECONDS,
        "ExitTimeOut": STOP_SECONDS,
        "ProcessType": "Interactive",  # Background slows Metal eight times
        "EnvironmentVariables": environment,
        "SoftResourceLimits": limits,
        "HardResourceLimits": limits,
        "WorkingDirectory": str(definition.home.state),
        "Umask": definition.umask,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    if definition.is_system:
        environment["HOME"] = str(definition.account.folder)
        keys["UserName"] = definition.account.name
        keys["GroupName"] = definition.account.group
    else:
        keys["LimitLoadToSessionType"] = ["Aqua", "Background"]
    return keys


def console_owner() -> int | None:
    """Return the user who is logged in at the screen."""
    try:
        return Path("/dev/console").stat().st_uid
    except OSError:
        return None


def _refused(verb: str, answer: Answer) -> ServiceFailed:
    return ServiceFailed(f"launchctl {verb} answered {answer.code}: {answer.text or 'nothing'}")

"""systemd: a user unit, or a system unit that runs as a user without rights.

The system unit is closed in as far as a program allows that compiles kernels and works in its user's folders. A user
manager lacks the rights for most of that, and a unit that asks for it does not start where user namespaces are denied
(status 218, systemd/systemd#4959); what it would forbid, a user's process cannot do anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rvc_batch.errors import ServiceFailed, SettingsInvalid
from rvc_batch.service.control import Registration
from rvc_batch.service.definition import ENVIRONMENT, STOP_SECONDS, UNIT, Definition
from rvc_batch.service.machine import Answer, Machine

NOT_LOADED = 5
TEMPLATE = """\
[Unit]
Description=rvc-batch voice-conversion render box
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
WatchdogSec=120
ExecStart={command}
{account}{environment}Restart=on-failure
RestartSec=5
RestartPreventExitStatus=78
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={stop}
OOMPolicy=continue
UMask={umask:04o}
NoNewPrivileges=yes
RestrictSUIDSGID=yes
{closed}
[Install]
WantedBy=default.target
"""
SYSTEM_ONLY = """\
PrivateTmp=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
"""


class Systemd:
    """The service of one definition under systemd."""

    name = "systemd"

    def __init__(self, definition: Definition, machine: Machine, say: Callable[[str], None]) -> None:
        self.definition = definition
        self._machine, self._say = machine, say
        units = Path("/etc/systemd/system")
        self.file = (units if definition.is_system else definition.account.folder / ".config/systemd/user") / UNIT

    def content(self) -> bytes:
        """Return the unit file."""
        return unit(self.definition).encode()

    def place(self, data: bytes) -> None:
        """Write the unit file and let systemd read it."""
        self._machine.write(self.file, data)
        self._do("daemon-reload")

    def forget(self) -> None:
        """Remove the unit file and let systemd notice."""
        self._machine.remove(self.file)
        self._do("daemon-reload")

    def load(self) -> None:
        """Enable and start it."""
        self._do("enable", UNIT)
        self.start()
        if not self.definition.is_system:
            self._check_linger()

    def unload(self) -> None:
        """Disable and stop it."""
        for verb in ("stop", "disable", "reset-failed"):
            answer = self._systemctl(verb, UNIT)
            is_unknown = answer.code == NOT_LOADED or re.search("not loaded|does not exist", answer.text)
            if answer.code and not is_unknown:
                raise _refused(verb, answer)

    def start(self) -> None:
        """Start it; readiness is waited for elsewhere."""
        self._systemctl("reset-failed", UNIT)  # an earlier start limit is no reason to refuse a person
        self._do("start", "--no-block", UNIT)

    def stop(self) -> None:
        """Stop it; it stays enabled."""
        self._do("stop", UNIT)

    def restart(self) -> None:
        """Stop it and start it again."""
        self._systemctl("reset-failed", UNIT)
        self._do("restart", "--no-block", UNIT)

    def registration(self) -> Registration:
        """Ask systemd."""
        answer = self._machine.ask(
            *self._command("show", UNIT, "--property=LoadState,ActiveState,SubState,MainPID,Result,ExecMainStatus")
        )
        found = dict(line.split("=", 1) for line in answer.text.splitlines() if "=" in line)
        if answer.code or found.get("LoadState") != "loaded":
            return Registration(is_registered=False)
        pid = int(found.get("MainPID") or 0)
        failure = ""
        if found.get("ActiveState") == "failed":
            failure = f"failed, result {found.get('Result')}, last exit status {found.get('ExecMainStatus')}"
        return Registration(
            is_registered=True,
            domain="system" if self.definition.is_system else "user",
            pid=pid or None,
            failure=failure,
        )

    def crash_lines(self, count: int) -> list[str]:
        """Return the end of the unit's journal."""
        scope = () if self.definition.is_system else ("--user",)
        answer = self._machine.ask("journalctl", *scope, "-u", UNIT, "-n", str(count), "--no-pager", "-o", "cat")
        return answer.text.splitlines() if answer.code == 0 else []

    def _check_linger(self) -> None:
        name = self.definition.account.name
        answer = self._machine.ask("loginctl", "show-user", name, "--property=Linger")
        if answer.text != "Linger=yes":
            self._say(f"warning: the service ends when {name} logs out; `loginctl enable-linger {name}` keeps it")

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return ("systemctl", *(() if self.definition.is_system else ("--user",)), *arguments)

    def _systemctl(self, *arguments: str) -> Answer:
        return self._machine.do(*self._command(*arguments))

    def _do(self, verb: str, *arguments: str) -> None:
        answer = self._systemctl(verb, *arguments)
        if answer.code:
            raise _refused(verb, answer)


def unit(definition: Definition) -> str:
    """Return the unit file; each value has its reason in docs/operations.md."""
    program, *arguments = definition.arguments
    account = f"User={definition.account.name}\n" if definition.is_system else ""
    return TEMPLATE.format(
        command=" ".join([quoted(program, is_program=True), *map(quoted, arguments)]),
        account=account,
        environment="".join(f"Environment={name}={value}\n" for name, value in ENVIRONMENT.items()),
        stop=STOP_SECONDS,
        umask=definition.umask,
        closed=SYSTEM_ONLY if definition.is_system else "",
    )


def quoted(argument: str, *, is_program: bool = False) -> str:
    """Return a word of a command line as systemd.service(5) reads it; variables are replaced in all but the program.

    Raises:
        SettingsInvalid: it holds a character that no unit file can.
    """
    if not argument.isprintable():
        raise SettingsInvalid(f"{argument!r} cannot be written into a unit file; choose another --home")
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    escaped = escaped if is_program else escaped.replace("$", "$$")
    return escaped if re.fullmatch(r"[\w./%@:=+-]+", argument, re.ASCII) else f'"{escaped}"'


def _refused(verb: str, answer: Answer) -> ServiceFailed:
    return ServiceFailed(f"systemctl {verb} answered {answer.code}: {answer.text or 'nothing'}")

"""From the options of the command line to one service: whose, under launchd or systemd, and what deserves a warning."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from rvc_batch.config import NOT_SETTINGS, load_settings
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.service.control import Control
from rvc_batch.service.definition import Definition, current_account, privacy_warnings, service_account
from rvc_batch.service.install import Installation
from rvc_batch.service.launchd import Launchd, console_owner
from rvc_batch.service.machine import DryRun, Machine, RealMachine
from rvc_batch.service.program import this_program
from rvc_batch.service.systemd import Systemd


class ControlName(StrEnum):
    """Who runs services."""

    LAUNCHD = "launchd"
    SYSTEMD = "systemd"


NATIVE = {"darwin": ControlName.LAUNCHD, "linux": ControlName.SYSTEMD}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The options of `rvc-batch service`."""

    home: Home
    is_home_given: bool = True
    is_system: bool = False
    user: str = ""
    control: ControlName | None = None
    is_dry: bool = False


def choose(choice: Choice, say: Callable[[str], None], *, is_install: bool) -> Installation:
    """Return the service that the options mean; an installation says what is worth a warning.

    Raises:
        SettingsInvalid: options that do not go together.
        ServiceFailed: no command is installed that a service could start.
    """
    name = choice.control or NATIVE.get(sys.platform)
    if name is None:
        raise SettingsInvalid(f"this is {sys.platform}, expected macOS or Linux; choose --manager launchd or systemd")
    definition, warnings = _define(choice)
    if is_install:
        for warning in [*warnings, *environment_warnings(os.environ)]:
            say(f"warning: {warning}")
        if name is ControlName.LAUNCHD:
            for warning in privacy_warnings(definition):
                say(f"warning: {warning}")
    machine: Machine = DryRun(say) if choice.is_dry else RealMachine()
    control: Control = Systemd(definition, machine, say)
    if name is ControlName.LAUNCHD:
        control = Launchd(definition, machine, say, console_uid=console_owner)
    return Installation(control, machine, say)


def environment_warnings(environment: Mapping[str, str]) -> list[str]:
    """Return a warning for each setting that this shell has and a service will not see."""
    return [
        f"{name} is set in this shell, but a service does not see it; put it into rvc-batch.toml"
        for name in sorted(environment)
        if name.startswith("RVC_BATCH_") and name not in NOT_SETTINGS
    ]


def _define(choice: Choice) -> tuple[Definition, list[str]]:
    if choice.is_system != bool(choice.user):
        raise SettingsInvalid("--system and --user NAME go together: a system service runs as a user without rights")
    if not choice.is_system and os.geteuid() == 0 and not choice.is_dry:
        raise SettingsInvalid(
            "this is root, and a service of root's own is never right; use --system --user NAME, or leave out sudo"
        )
    account = service_account(choice.user) if choice.is_system else current_account()
    home = choice.home
    if choice.is_system and not choice.is_home_given:
        home = Home(account.folder / "rvc-batch")  # not root's
    program, warnings = this_program()
    return (
        Definition(
            program=program,
            home=home,
            account=account,
            is_system=choice.is_system,
            umask=int(load_settings(home, {}).umask, 8),
        ),
        warnings,
    )

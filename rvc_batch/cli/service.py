"""`rvc-batch service`: the daemon under launchd or systemd."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json, columns, printable

if TYPE_CHECKING:
    from rvc_batch.service.install import Installation

System = Annotated[
    bool, typer.Option("--system", help="A service of the machine: runs with nobody logged in; needs sudo and --user.")
]
User = Annotated[str, typer.Option(help="Whom the system service runs as: a user without administrator rights.")]
Manager = Annotated[str, typer.Option(help="launchd or systemd; else the one of this system.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Print files and commands, and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    group = typer.Typer(name="service", help="Run the daemon under launchd or systemd.", no_args_is_help=True)
    for command in (install, uninstall, start, stop, restart, status, logs):
        group.command()(command)
    app.add_typer(group)


def install(
    ctx: typer.Context,
    system: System = False,
    user: User = "",
    manager: Manager = "",
    dry_run: Dry = False,
    json: options.AsJson = False,
) -> None:
    """Install or refresh the service, start it, and wait until it is ready; else restore what was there."""
    _act(_Options(ctx, system, user, manager, dry_run, json), lambda found: found.install(), is_install=True)


def uninstall(
    ctx: typer.Context,
    system: System = False,
    user: User = "",
    manager: Manager = "",
    dry_run: Dry = False,
    json: options.AsJson = False,
) -> None:
    """Stop and remove the service; jobs, models and results stay."""
    _act(_Options(ctx, system, user, manager, dry_run, json), lambda found: found.uninstall())


def start(
    ctx: typer.Context,
    system: System = False,
    user: User = "",
    manager: Manager = "",
    dry_run: Dry = False,
    json: options.AsJson = False,
) -> None:
    """Start the service and wait until it is ready."""
    _act(_Options(ctx, system, user, manager, dry_run, json), lambda found: found.start())


def stop(
    ctx: typer.Context,
    system: System = False,
    user: User = "",
    manager: Manager = "",
    dry_run: Dry = False,
    json: options.AsJson = False,
) -> None:
    """Stop the service until the next boot, login or start; the present job goes back to the queue."""
    _act(_Options(ctx, system, user, manager, dry_run, json), lambda found: found.stop())


def restart(
    ctx: typer.Context,
    system: System = False,
    user: User = "",
    manager: Manager = "",
    dry_run: Dry = False,
    json: options.AsJson = False,
) -> None:
    """Stop the service, start it, and wait until it is ready; after an upgrade, for instance."""
    _act(_Options(ctx, system, user, manager, dry_run, json), lambda found: found.restart())


def status(
    ctx: typer.Context, system: System = False, user: User = "", manager: Manager = "", json: options.AsJson = False
) -> None:
    """Say whether the service is installed, known to the system, and running; exits with 0 or 1."""
    found = _choose(_Options(ctx, system, user, manager, False, json), typer.echo).status()
    if json:
        typer.echo(as_json(service=found))
    else:
        pid = "–" if found.pid is None else str(found.pid)
        rows = [
            ("service", f"{found.control} {found.domain}".strip()),
            ("pid", pid),
            ("file", f"{found.file}{'' if found.is_installed else ' (missing)'}"),
            ("program", found.program),
        ]
        typer.echo(f"{'DOWN' if found.trouble else 'OK'}   {printable(found.trouble or 'running')}\n\n{columns(rows)}")
    raise typer.Exit(1 if found.trouble else 0)


def logs(
    ctx: typer.Context,
    system: System = False,
    user: User = "",
    manager: Manager = "",
    lines: Annotated[int, typer.Option(min=1, help="How many, of each log.")] = 20,
    json: options.AsJson = False,
) -> None:
    """Print the end of the log, and of what the system captured from a daemon that crashed."""
    found = _choose(_Options(ctx, system, user, manager, False, json), typer.echo).log_lines(lines)
    typer.echo(as_json(lines=found) if json else "\n".join(map(printable, found)))


class _Options:
    """What every one of these commands was given."""

    def __init__(self, ctx: typer.Context, system: bool, user: str, manager: str, dry_run: bool, json: bool) -> None:
        self.context: Context = ctx.obj
        given = ctx.find_root().params.get("home")
        self.is_home_given = given is not None or bool(os.environ.get("RVC_BATCH_HOME"))
        self.system, self.user, self.manager, self.dry_run, self.json = system, user, manager, dry_run, json


def _choose(given: _Options, say: Callable[[str], None], *, is_install: bool = False) -> Installation:
    from rvc_batch.errors import SettingsInvalid
    from rvc_batch.service.choose import Choice, ControlName, choose

    if given.manager and given.manager not in set(ControlName):
        raise SettingsInvalid(f"--manager is {given.manager!r}, expected one of {', '.join(ControlName)}")
    choice = Choice(
        home=given.context.home,
        is_home_given=given.is_home_given,
        is_system=given.system,
        user=given.user,
        control=ControlName(given.manager) if given.manager else None,
        is_dry=given.dry_run,
    )
    return choose(choice, say, is_install=is_install)


def _act(given: _Options, verb: Callable[[Installation], None], *, is_install: bool = False) -> None:
    said: list[str] = []
    verb(_choose(given, said.append if given.json else typer.echo, is_install=is_install))
    if given.json:
        typer.echo(as_json(dry_run=given.dry_run, said=said))

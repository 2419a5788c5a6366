"""`rvc-batch status`: one word, the reason, and the facts it rests on, once or again and again."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json

if TYPE_CHECKING:
    from rvc_batch.jobs.status import Status

CLEAR = "\033[H\033[J"  # to the top left corner, and erase what follows


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(status)


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again and again until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two drawings.")] = 2.0,
    json: options.AsJson = False,
) -> None:
    """Say in one word whether it works, and why not if it does not.

    Exits with 0 for OK and BUSY, 1 for PAUSED and DEGRADED, 2 for DOWN, 3 if the jobs cannot be read; with --watch as
    it was last. With --watch --json one object per line.
    """
    context: Context = ctx.obj
    found = _read(context)
    with contextlib.suppress(KeyboardInterrupt):
        while watch:
            _draw(found, json=json)
            time.sleep(interval)
            found = _read(context)
        _show(found, json=json)
    raise typer.Exit(found.exit_code)


def _read(context: Context) -> Status:
    from rvc_batch.jobs.status import read_status
    from rvc_batch.service.presence import installed_service

    return read_status(context.home, service=installed_service(context.home))


def _draw(found: Status, *, json: bool) -> None:
    """Show it in the place of the last one in a terminal, and below it elsewhere."""
    is_screen = sys.stdout.isatty() and not json
    typer.echo(CLEAR if is_screen else "", nl=False)
    _show(found, json=json)
    typer.echo("" if is_screen or json else "\n", nl=False)


def _show(found: Status, *, json: bool) -> None:
    from rvc_batch.cli.status_text import lines
    from rvc_batch.jobs.status import notes

    if json:
        typer.echo(as_json(status=found, notes=notes(found)))
    else:
        typer.echo("\n".join(lines(found)))

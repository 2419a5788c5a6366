"""`rvc-batch demo`: the whole box at work, with the voices that come with it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.printing import as_json


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(demo)


def demo(
    folder: Annotated[Path, typer.Argument(help="A new home; one of an earlier demo goes on.")] = Path(
        "rvc-batch-demo"
    ),
    json: options.AsJson = False,
) -> None:
    """Show the box at work, offline: start it, drop speech of two voices, get each in the other's voice.

    Makes a home of its own with two small voices and leaves it there; --home does not matter. With --json what is going
    on is told on standard error.
    """
    from rvc_batch.demo.main_job import show

    results = show(folder, partial(typer.echo, err=json))
    if json:
        typer.echo(as_json(results=[str(path) for path in results]))

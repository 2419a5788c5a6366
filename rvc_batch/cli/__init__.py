"""The command line: parse, call, map errors to exit codes. No logic lives here.

Command modules import the rest of the program inside their functions, so that `status` starts in a fraction of a
second and never loads a framework.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from rvc_batch.cli.context import Context
from rvc_batch.errors import ConfigError, DaemonRunning, EnvironmentFault, InputError, ModelError, RvcBatchError
from rvc_batch.version import __version__

EXIT_CODES: tuple[tuple[type[RvcBatchError], int], ...] = (
    (ConfigError, 78),  # EX_CONFIG
    (InputError, 65),  # EX_DATAERR
    (ModelError, 66),  # EX_NOINPUT
    (EnvironmentFault, 75),  # EX_TEMPFAIL: the machine, not the command; try again
    (DaemonRunning, 75),
    (RvcBatchError, 1),
)


def build_app() -> typer.Typer:
    """Return the whole command tree."""
    from rvc_batch.cli import convert, demo, jobs, models, networks, recipe, run, service, stats, status, upkeep, voices

    app = typer.Typer(
        name="rvc-batch",
        help="A voice-conversion render box: drop audio into inbox/, get RVC conversions in outbox/.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )

    @app.callback()
    def _shared(
        ctx: typer.Context,
        home: Annotated[
            Path | None,
            typer.Option(
                help="Folder with inbox, outbox, models, voices and state. Else RVC_BATCH_HOME, the checkout, "
                "or ~/rvc-batch."
            ),
        ] = None,
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
        ] = False,
    ) -> None:
        from rvc_batch.home import locate_home

        ctx.obj = Context(home=locate_home(home))

    convert.register(app)
    models.register(app)
    voices.register(app)
    networks.register(app)
    jobs.register(app)
    recipe.register(app)
    run.register(app)
    demo.register(app)
    service.register(app)
    stats.register(app)
    status.register(app)
    upkeep.register(app)
    return app


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"rvc-batch {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a known error becomes one sentence on stderr and a non-zero exit."""
    try:
        build_app()()
    except RvcBatchError as error:
        typer.echo(f"error {error.code}: {_printable(str(error))}", err=True)
        logging.getLogger(__name__).debug("command failed", exc_info=error)
        sys.exit(exit_code(error))


def exit_code(error: RvcBatchError) -> int:
    """Return the process exit code for an error class (docs/errors.md)."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def _printable(text: str) -> str:
    """Return the text with control characters escaped, so that a file name cannot drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)

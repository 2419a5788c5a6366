"""`rvc-batch run`: the service in the foreground."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rvc_batch.cli.context import Context


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(run)


def run(
    ctx: typer.Context,
    backend: Annotated[str | None, typer.Option(help="mlx or torch; else the one of the settings.")] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Convert all there is in inbox and queue, then exit.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much is logged.")] = LogLevel.INFO,
) -> None:
    """Watch the inbox and convert what is dropped there, until a signal ends it.

    The first Ctrl-C or SIGTERM stops after the present segment and gives the job back; the second stops at once.
    SIGHUP reads the settings again and reopens the log.
    """
    from rvc_batch import logs
    from rvc_batch.config import Settings
    from rvc_batch.engine.backend import BACKENDS
    from rvc_batch.errors import SettingsInvalid
    from rvc_batch.jobs.daemon import Daemon, DaemonOptions
    from rvc_batch.jobs.folders import Folders

    context: Context = ctx.obj

    def with_backend(settings: Settings) -> Settings:
        if backend is None:
            return settings
        if backend not in BACKENDS:
            raise SettingsInvalid(f"--backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
        values = settings.model_dump()
        values["worker"]["backend"] = backend
        return Settings.model_validate(values)

    def open_logs() -> None:
        logs.configure(context.home.logs, level=log_level)

    settings = with_backend(context.settings)
    Folders(context.home).create()
    open_logs()
    options = DaemonOptions(until_idle=until_idle, reopen_logs=open_logs, adjust=with_backend)
    Daemon(context.home, settings, options).run()

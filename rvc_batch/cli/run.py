"""`rvc-batch run`: the service in the foreground."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from enum import StrEnum
from typing import Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json


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
    service: Annotated[
        bool,
        typer.Option(
            "--service", help="As launchd or systemd starts it: log to the file only, give up after five failed starts."
        ),
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much is logged.")] = LogLevel.INFO,
    json: options.AsJson = False,
) -> None:
    """Watch the inbox and convert what is dropped there, until a signal ends it.

    The first Ctrl-C or SIGTERM stops after the present segment and gives the job back; the second stops at once.
    SIGHUP reads the settings again and reopens the log. --json prints the number of jobs in each state at the end.
    """
    from rvc_batch import logs
    from rvc_batch.config import Settings
    from rvc_batch.engine.backend import BACKENDS
    from rvc_batch.errors import SettingsInvalid
    from rvc_batch.jobs.daemon import Daemon, DaemonOptions
    from rvc_batch.jobs.folders import Folders
    from rvc_batch.jobs.machine import started_by
    from rvc_batch.jobs.notify import Notifier
    from rvc_batch.jobs.reading import QueueReader
    from rvc_batch.jobs.starts import Starts
    from rvc_batch.log_repeats import limit_repeats

    context: Context = ctx.obj
    starts, notifier = Starts(context.home), Notifier()

    def with_backend(settings: Settings) -> Settings:
        if backend is None:
            return settings
        if backend not in BACKENDS:
            raise SettingsInvalid(f"--backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
        values = settings.model_dump()
        values["worker"]["backend"] = backend
        return Settings.model_validate(values)

    def open_logs(settings: Settings) -> None:
        logs.configure(
            context.home.logs,
            level=log_level,
            to_stderr=not service,
            as_json=settings.log.format == "json",
            max_bytes=int(settings.log.max_mb * 1e6),
            kept=settings.log.kept,
        )
        limit_repeats(logging.getLogger())

    def beat() -> None:
        notifier.beat()
        starts.beat()

    def serve() -> None:
        settings = with_backend(context.settings)
        Folders(context.home).create()
        open_logs(settings)
        chosen = DaemonOptions(
            until_idle=until_idle,
            reopen_logs=open_logs,
            on_beat=beat,
            adjust=with_backend,
            started_by=started_by(os.environ) if service else "a terminal",
        )
        Daemon(context.home, settings, chosen).run()

    if service:
        logs.trim_standard_error()
        starts.run(serve)
    else:
        serve()
    if json:
        with closing(QueueReader.open_readonly(context.home.database)) as reader:
            typer.echo(as_json(jobs=reader.counts()))

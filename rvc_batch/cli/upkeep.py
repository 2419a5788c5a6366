"""Commands that look after the box: `why`, `backup`, `doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import ago, as_json, columns, printable, size


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    for command in (why, backup, doctor):
        app.command()(command)


def why(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file of the inbox, or one that was there.")],
    json: options.AsJson = False,
) -> None:
    """Say why a file of the inbox is not a job, or which job took it."""
    from rvc_batch.jobs.explain import explain
    from rvc_batch.jobs.reading import QueueReader

    home = _context(ctx).home
    with closing(QueueReader.open_readonly(home.database)) as reader:
        found = explain(home, reader, path)
    if json:
        typer.echo(as_json(why=found))
        return
    typer.echo(f"{printable(found.rel.decode('utf-8', 'replace'))}: {found.verdict}, {printable(found.reason)}")
    if found.arrival is not None:
        typer.echo(f"  {size(found.arrival.size)}, unchanged since {ago(found.arrival.last_change, time.time())}")
        if found.job is not None:
            typer.echo(f"  an earlier file of this name was job {found.job.id} ({found.job.state})")
    if found.advice:
        typer.echo(f"  → {printable(found.advice)}")


def backup(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="Where to; else state/backups/jobs-TIME.sqlite3.")] = None,
    json: options.AsJson = False,
) -> None:
    """Copy the job database, also while the daemon works; to restore, stop the daemon and put the copy in its place."""
    from rvc_batch.jobs.backup import default_target, make_backup

    home = _context(ctx).home
    target = default_target(home, time.time()) if file is None else file.expanduser().absolute()
    count = make_backup(home, target)
    typer.echo(as_json(backup=str(target), size=count) if json else f"{printable(str(target))}   {size(count)}")


def doctor(
    ctx: typer.Context,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read the whole database, work/ and outbox, too; takes its time.")
    ] = False,
    json: options.AsJson = False,
) -> None:
    """Check everything the box rests on, and say what to do about what is wrong.

    Exits with 0 if all is well, 1 with warnings, 2 if something does not work.
    """
    from rvc_batch.jobs.doctor import examine
    from rvc_batch.jobs.findings import Level
    from rvc_batch.service.checks import examine_service
    from rvc_batch.service.machine import RealMachine
    from rvc_batch.service.presence import installed_service

    home = _context(ctx).home
    found = [*examine(home, deep=deep), *examine_service(RealMachine(), installed_service(home))]
    worst = max(finding.level.severity for finding in found)
    if json:
        typer.echo(as_json(findings=found, exit_code=worst))
    else:
        rows = [(finding.level.upper(), finding.check, finding.what) for finding in found]
        typer.echo("\n".join(_with_remedies(columns(rows).splitlines(), [finding.remedy for finding in found])))
        counts = [sum(finding.level is level for finding in found) for level in (Level.WARNING, Level.FAULT)]
        typer.echo(f"\n{len(found)} checks, {counts[0]} warnings, {counts[1]} faults")
    raise typer.Exit(worst)


def _with_remedies(lines: list[str], remedies: list[str]) -> Iterator[str]:
    for line, remedy in zip(lines, remedies, strict=True):
        yield line
        if remedy:
            yield f"          → {printable(remedy)}"


def _context(ctx: typer.Context) -> Context:
    context: Context = ctx.obj
    return context

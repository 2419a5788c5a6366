"""`rvc-batch stats` and `rvc-batch metrics`: what the box did, for people and for programs that watch it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json, columns, length, span
from rvc_batch.errors import SettingsInvalid

if TYPE_CHECKING:
    from rvc_batch.jobs.statistics import Statistics, Work

UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    for command in (stats, metrics):
        app.command()(command)


def stats(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d, 4w, or a date like 2026-11-25.")] = "24h",
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it over time, too.")] = None,
    json: options.AsJson = False,
) -> None:
    """Sum up what was rendered: how much, how fast, what failed, and where the time went."""
    from rvc_batch.jobs.reading import QueueReader
    from rvc_batch.jobs.statistics import read_statistics
    from rvc_batch.plots.figure import require_matplotlib

    context: Context = ctx.obj
    if plot is not None:
        require_matplotlib()
    now = time.time()
    with closing(QueueReader.open_readonly(context.home.database)) as reader:
        found = read_statistics(reader, since=start_of(since, now), until=now)
    if plot is not None:
        from rvc_batch.plots.statistics import draw_timeline

        draw_timeline(found.timeline, plot.expanduser().absolute())
    picture = {} if plot is None else {"plot": str(plot)}
    typer.echo(as_json(stats=found, **picture) if json else "\n".join([*_lines(found), *picture.values()]))


def metrics(ctx: typer.Context, json: options.AsJson = False) -> None:
    """Print the box as numbers in Prometheus' text format; works with the daemon down, too."""
    from rvc_batch.jobs.metrics import metrics_text, read_metrics
    from rvc_batch.jobs.reading import QueueReader

    context: Context = ctx.obj
    with closing(QueueReader.open_readonly(context.home.database)) as reader:
        found = read_metrics(context.home, reader, now=time.time())
    typer.echo(as_json(metrics=found) if json else metrics_text(found), nl=json)


def start_of(since: str, now: float) -> float:
    """Return the time that `--since` means.

    Raises:
        SettingsInvalid: it means none in the past.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", since)
    try:
        start = now - float(found[1]) * UNITS_S[found[2]] if found else datetime.fromisoformat(since).timestamp()
    except ValueError as e:
        raise SettingsInvalid(f"--since is {since!r}, expected 90m, 24h, 7d, 4w or a date like 2026-11-25") from e
    if start >= now:
        raise SettingsInvalid(f"--since is {since!r}, which is not in the past")
    return max(start, 0.0)


def _lines(found: Statistics) -> Iterator[str]:
    yield f"the last {span(found.until - found.since)}"
    yield ""
    rows = [("all voices", found.all), *found.voices.items()]
    header = ("", "done", "failed", "cancelled", "audio", "work", "realtime", "median", "p10", "p90")
    yield columns([header, *(_row(name, work) for name, work in rows)], indent=" ")
    if found.median_wait_seconds is not None:
        yield f"\n wait from arrival to start, median: {span(found.median_wait_seconds)}"
    total = sum(found.stage_seconds.values())
    if total > 0:
        yield "\n where the time goes"
        shares = ((s, f"{100 * seconds / total:.1f} %", length(seconds)) for s, seconds in found.stage_seconds.items())
        yield columns(shares, indent="   ")
    if found.failures:
        yield "\n failures"
        yield columns(((code, str(count)) for code, count in found.failures.items()), indent="   ")


def _row(name: str, work: Work) -> tuple[str, ...]:
    speed = work.speed
    speeds = ("–",) * 3 if speed is None else tuple(f"{value:.1f}x" for value in (speed.median, speed.p10, speed.p90))
    factor = "–" if work.realtime_factor is None else f"{work.realtime_factor:.1f}x"
    counts = (str(work.done), str(work.failed), str(work.cancelled))
    return (name, *counts, length(work.audio_seconds), length(work.work_seconds), factor, *speeds)

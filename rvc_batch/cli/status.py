"""`rvc-batch status`: one word, the reason, and the facts it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import ago, as_json, coloured, columns, length, printable, size, span

if TYPE_CHECKING:
    from rvc_batch.jobs.overview import Day, JobLine, Overview
    from rvc_batch.jobs.status import Status

BAR_CELLS = 16
MAX_PERCENT = 99  # 100 is for what is in the outbox


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(status)


def status(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say in one word whether it works, and why not if it does not.

    Exits with 0 for OK and BUSY, 1 for PAUSED and DEGRADED, 2 for DOWN, 3 if the jobs cannot be read.
    """
    from rvc_batch.jobs.status import notes, read_status

    context: Context = ctx.obj
    found = read_status(context.home)
    if json:
        typer.echo(as_json(status=found, notes=notes(found)))
    else:
        typer.echo("\n".join(lines(found)))
    raise typer.Exit(found.exit_code)


def lines(found: Status) -> Iterator[str]:
    """Yield the lines of the text form."""
    from rvc_batch.jobs.status import notes

    left = "" if found.left is None or found.left.high < 1 else f" · about {_range(found)} of work left"
    yield f"{coloured(found.word)}   {printable(found.reason)}{left}"
    if found.command:
        yield f"       → {printable(found.command)}"
    yield ""
    yield columns(_facts(found), indent=" ")
    overview = found.database.overview
    if overview is not None:
        yield from _now(found, overview)
        yield from _next(found, overview)
        yield from _day(found, overview.day)
        yield from _failed(found, overview)
    for number, note in enumerate(notes(found)):
        yield f"{'' if number else chr(10)} NOTE  {printable(note)}"


def _facts(found: Status) -> Iterator[tuple[str, str]]:
    daemon, worker, database = found.daemon, found.daemon.worker, found.database
    if daemon.is_alive:
        files = "" if daemon.open_files is None else f"   {daemon.open_files} of {daemon.open_files_limit} files open"
        yield "daemon", f"pid {daemon.pid}   up {span(daemon.uptime_s)}   heartbeat {span(daemon.age_s)} ago{files}"
    else:
        yield "daemon", f"not running   last heartbeat {f'{span(daemon.age_s)} ago' if daemon.age_s else 'unknown'}"
    if daemon.is_alive and worker is not None:
        warm = ", ".join(worker.warm_voices) or "no voice"
        heard = f"heard {span(worker.age_s)} ago" if worker.age_s is not None else "not heard yet"
        process = "no process" if worker.pid is None else f"pid {worker.pid}"
        yield "worker", f"{process}   {worker.state}   warm: {warm}   {heard}   restarts {worker.restarts}"
        yield "device", f"{worker.device or '–'}   {worker.backend}   rss {size(worker.rss)}"
    rescan = f"   rescan {span(daemon.rescan_age_s)} ago" if daemon.is_alive else ""
    trouble = daemon.inbox_error or found.inbox.error
    verdicts = [arrival.verdict for arrival in database.arrivals]
    waiting = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    yield "inbox", "   ".join(filter(None, (found.inbox.path, daemon.inbox_mode + rescan, waiting, trouble)))
    yield "outbox", f"{found.outbox.path}   {found.outbox.error or size(found.outbox.free_bytes) + ' free'}"
    if database.overview is None:
        yield "database", database.error
    else:
        total = sum(database.overview.counts.values())
        yield "database", f"{database.path}   {total} jobs   {size(database.size)}   schema {database.overview.schema}"


def _now(found: Status, overview: Overview) -> Iterator[str]:
    for number, job in enumerate(overview.running):
        share = job.progress_done / job.progress_total if job.progress_total > 0 else 0.0
        percent = min(int(100 * share), MAX_PERCENT)
        filled = percent * BAR_CELLS // 100
        bar = "█" * filled + "░" * (BAR_CELLS - filled)
        yield ""
        head = " NOW  " if number == 0 else "      "
        yield f"{head} {_named(job)}   [{bar}] {percent} %   {job.stage or 'starting'}"
        yield f"       {_progress(found, job)}"


def _progress(found: Status, job: JobLine) -> str:
    elapsed = max(found.at - (job.started_at or found.at), 0.0)
    facts = [f"{length(job.seconds_in)} audio"]
    if job.progress_done > 0 and elapsed > 0 and found.daemon.is_alive:
        speed = job.progress_done / elapsed
        facts.append(f"at {speed:.1f}x realtime")
        facts.append(f"{length(elapsed)} elapsed")
        facts.append(f"{length(max(job.progress_total - job.progress_done, 0.0) / speed)} left")
    else:
        facts.append(f"{length(elapsed)} elapsed")
    facts.append(f"attempt {job.attempt}/{job.max_attempts}")
    if job.cancel_requested:
        facts.append("to be cancelled at the next segment")
    if job.lease_until is not None and job.lease_until < found.at:
        facts.append(f"nobody has worked on it for {span(found.at - job.lease_until)}")
    return "   ".join(facts)


def _next(found: Status, overview: Overview) -> Iterator[str]:
    for number, job in enumerate(overview.next):
        later = f"   in {span(job.run_after - found.at)}" if job.run_after > found.at else ""
        why = f"   after {job.error_code}, attempt {job.attempt + 1}/{job.max_attempts}" if job.error_code else ""
        head = "\n NEXT " if number == 0 else "      "
        yield f"{head} {_named(job)}   {length(job.seconds_in)}{later}{why}"
    if overview.more_queued > 0:
        audio = length(sum(part.seconds for part in overview.backlog))
        unknown = sum(part.unknown for part in overview.backlog)
        rest = f", {unknown} of unknown length" if unknown else ""
        yield f"       … {overview.more_queued} more ({audio} of audio in all{rest})"


def _day(found: Status, day: Day) -> Iterator[str]:
    from rvc_batch.jobs.estimate import median

    if not day.done and not day.failed:
        return
    speed = "" if found.speed is None else f"   speed {found.speed.median:.1f}x (p10 {found.speed.p10:.1f}x)"
    wait = "" if not day.waits else f"   wait median {span(median(day.waits))}"
    yield f"\n LAST 24 h   done {day.done}   failed {day.failed}{speed}{wait}"
    total = sum(day.stage_seconds.values())
    if total > 0:
        shares = sorted(day.stage_seconds.items(), key=lambda item: -item[1])
        yield f"   where the time goes   {'   '.join(f'{stage} {100 * s / total:.0f} %' for stage, s in shares)}"


def _failed(found: Status, overview: Overview) -> Iterator[str]:
    if not overview.failed:
        return
    yield ""
    rows = [
        (
            " FAILED" if number == 0 else "",
            f"#{job.id} {job.source_name}",
            job.error_code or "",
            job.error_stage or "",
            f"attempt {job.attempt}/{job.max_attempts}, {ago(job.finished_at, found.at)}",
            job.error_message or "",
        )
        for number, job in enumerate(overview.failed)
    ]
    yield columns(rows)
    if overview.more_failed > 0:
        yield f"         … {overview.more_failed} more: rvc-batch jobs --state failed"
    first = overview.failed[0].id
    yield f"         → rvc-batch job {first} for everything, rvc-batch retry {first} to try again"


def _named(job: JobLine) -> str:
    return f"#{job.id} {printable(job.source_name)} → {printable(job.voice)}"


def _range(found: Status) -> str:
    assert found.left is not None
    low, high = found.left.low, found.left.high
    if high < 120:
        return f"{high:.0f} s" if round(low) == round(high) else f"{low:.0f}–{high:.0f} s"
    unit, scale = ("min", 60) if high < 7200 else ("h", 3600)
    low_text, high_text = (f"{value / scale:.0f}" for value in (low, high))
    return f"{high_text} {unit}" if low_text == high_text else f"{low_text}–{high_text} {unit}"

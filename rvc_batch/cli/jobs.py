"""Commands that read and steer the queue: `jobs`, `job`, `retry`, `cancel`, `pause`, `resume`, `drain`, `add`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import ago, as_json, columns, length, printable, size
from rvc_batch.errors import JobStateConflict, RvcBatchError, SettingsInvalid, SourceGone

if TYPE_CHECKING:
    from rvc_batch.jobs.models import Attempt, Event, Job
    from rvc_batch.jobs.queue import Queue

COMMAND_BUSY_WAITS = 1  # a person waits ten seconds for the database, not a minute
Numbers = Annotated[list[int], typer.Argument(metavar="ID…", help="Numbers of jobs, as `jobs` shows them.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    for command in (jobs, job, retry, cancel, pause, resume, drain, add):
        app.command()(command)


def jobs(
    ctx: typer.Context,
    state: Annotated[
        str, typer.Option(help="Only ingesting, queued, running, done, failed, cancelled or duplicate jobs.")
    ] = "",
    voice: Annotated[str, typer.Option(help="Only jobs of this voice.")] = "",
    error: Annotated[str, typer.Option(help="Only jobs that failed with this code.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    json: options.AsJson = False,
) -> None:
    """List jobs, newest first."""
    from rvc_batch.jobs.models import JobState
    from rvc_batch.jobs.reading import QueueReader

    if state and state not in set(JobState):
        raise SettingsInvalid(f"--state is {state!r}, expected one of {', '.join(JobState)}")
    with closing(QueueReader.open_readonly(_context(ctx).home.database)) as reader:
        found = reader.list(
            state=JobState(state) if state else None, voice=voice or None, error_code=error or None, limit=limit
        )
    if json:
        typer.echo(as_json(jobs=found))
    elif found:
        typer.echo(columns(_rows(found)))
    else:
        typer.echo("no jobs")


def job(
    ctx: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of a job, as `jobs` shows it.")],
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw mel and loudness of input and output, f0 of both, and segment borders."
        ),
    ] = None,
    json: options.AsJson = False,
) -> None:
    """Show everything about one job: settings, attempts, stage timings, journal, traceback."""
    from rvc_batch.jobs.reading import QueueReader

    with closing(QueueReader.open_readonly(_context(ctx).home.database)) as reader:
        found, attempts, events = reader.get(number), reader.attempts(number), reader.events(number)
    picture = {} if plot is None else {"plot": str(_draw(_context(ctx), found, plot.expanduser().absolute()))}
    if json:
        typer.echo(as_json(job=found, attempts=attempts, events=events, **picture))
    else:
        typer.echo("\n".join([*_whole_job(found, attempts, events), *picture.values()]))


def retry(
    ctx: typer.Context,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[ID…]", help="Numbers of jobs, as `jobs` shows them.")
    ] = None,
    error: Annotated[str, typer.Option(metavar="CODE", help="All failed jobs with this code instead.")] = "",
    all_failed: Annotated[bool, typer.Option("--all-failed", help="All failed jobs instead.")] = False,
    json: options.AsJson = False,
) -> None:
    """Queue failed or cancelled jobs again, each with a new budget of attempts; their history stays."""
    if bool(numbers) + bool(error) + all_failed != 1:
        raise SettingsInvalid("retry wants numbers of jobs, or --error CODE, or --all-failed; exactly one of them")
    wanted = numbers or _failed(ctx, error)
    _each(ctx, wanted, lambda queue, number: queue.retry(number), "queued again", json=json)
    if not wanted and not json:
        typer.echo(f"no failed job{f' with {printable(error)}' if error else ''}")


def cancel(ctx: typer.Context, numbers: Numbers, json: options.AsJson = False) -> None:
    """Cancel jobs: queued ones at once, a running one at its next segment."""
    _each(ctx, numbers, lambda queue, number: queue.cancel(number), "cancelled", json=json)


def pause(
    ctx: typer.Context,
    reason: Annotated[str, typer.Argument(help="Shown by `status`.")] = "paused by hand",
    json: options.AsJson = False,
) -> None:
    """Let no job be started until `resume`; one that runs is finished. Survives a restart."""
    with closing(_open(ctx)) as queue:
        queue.pause(reason)
    typer.echo(as_json(paused=True, reason=reason) if json else "paused; `rvc-batch resume` goes on")


def resume(ctx: typer.Context, json: options.AsJson = False) -> None:
    """Let jobs be started, and files be taken from the inbox, again."""
    with closing(_open(ctx)) as queue:
        queue.resume()
    typer.echo(as_json(paused=False) if json else "resumed")


def drain(ctx: typer.Context, json: options.AsJson = False) -> None:
    """Finish every job there is, and take nothing new from the inbox until `resume`. Survives a restart.

    Files may still be dropped: they wait in the inbox. Ends a pause by hand, because jobs are to be finished.
    """
    from rvc_batch.jobs.models import ACTIVE

    with closing(_open(ctx)) as queue:
        queue.drain()
        counts = queue.counts()
    left = sum(counts[state] for state in ACTIVE)
    text = f"draining, {left} jobs to finish; `rvc-batch status` shows when, `rvc-batch resume` goes on"
    typer.echo(as_json(draining=True, unfinished=left) if json else text)


def add(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Audio files; they stay where they are.")],
    voice: Annotated[str, typer.Option(help="Name of a voice or recipe; else the default voice.")] = "",
    transpose: options.Transpose = None,
    index_rate: options.IndexRate = None,
    protect: options.Protect = None,
    rms_mix_rate: options.RmsMixRate = None,
    speaker_id: options.SpeakerId = None,
    seed: options.Seed = None,
    noise_scale: options.NoiseScale = None,
    source_noise_scale: options.SourceNoiseScale = None,
    dialect: options.DialectName = None,
    seams: options.Seams = None,
    pitch_method: options.PitchMethodName = None,
    pitch_threshold: options.PitchThreshold = None,
    f0_smoothing: options.F0Smoothing = None,
    auto_key: options.AutoKey = None,
    autotune: options.Autotune = None,
    autotune_scale: options.AutotuneScale = None,
    formant_shift: options.FormantShift = None,
    formant_quefrency_ms: options.FormantQuefrency = None,
    embedder: options.Embedder = None,
    resample_rate: options.ResampleRate = None,
    output_format: options.OutputFormat = None,
    channels: options.Channels = None,
    loudness_lufs: options.LoudnessLufs = None,
    gate_db: options.GateDb = None,
    noise_reduction: options.NoiseReduction = None,
    effects: options.Effects = None,
    json: options.AsJson = False,
) -> None:
    """Copy files into the inbox, whole or not at all; works with the daemon down, too."""
    from rvc_batch.importers.store import ModelStore
    from rvc_batch.jobs.add import add_file
    from rvc_batch.jobs.presets import Presets

    context = _context(ctx)
    home = context.home
    given = {
        "transpose": transpose,
        "index_rate": index_rate,
        "protect": protect,
        "rms_mix_rate": rms_mix_rate,
        "speaker_id": speaker_id,
        "seed": seed,
        "noise_scale": noise_scale,
        "source_noise_scale": source_noise_scale,
        "dialect": dialect,
        "seams": seams,
        "pitch_method": pitch_method,
        "pitch_threshold": pitch_threshold,
        "f0_smoothing": f0_smoothing,
        "auto_key": auto_key,
        "autotune": autotune,
        "autotune_scale": autotune_scale,
        "formant_shift": formant_shift,
        "formant_quefrency_ms": formant_quefrency_ms,
        "embedder": embedder,
        "resample_rate": resample_rate,
        "output_format": output_format,
        "channels": channels,
        "loudness_lufs": loudness_lufs,
        "gate_db": gate_db,
        "noise_reduction": noise_reduction,
        "effects": effects,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    voices = ModelStore.of(home, context.settings.library.folders(home)).voice_names()
    voices += Presets(recipes=home.recipes).recipe_names()
    added = []
    for file in files:
        added.append(add_file(home, file, voice=voice, voices=voices, settings=settings))
        if not json:
            typer.echo(f"added {printable(str(added[-1]))}")
    if json:
        typer.echo(as_json(added=[str(path) for path in added]))


def _draw(context: Context, found: Job, picture: Path) -> Path:
    """Draw a job that is done; the pitch network is run on both ends."""
    from rvc_batch.api import analyse
    from rvc_batch.jobs.models import JobState
    from rvc_batch.jobs.publish import output_path
    from rvc_batch.jobs.sources import Sources
    from rvc_batch.plots.conversion import Side, draw_conversion
    from rvc_batch.plots.figure import require_matplotlib

    require_matplotlib()
    if found.state is not JobState.DONE:
        raise JobStateConflict(f"job {found.id} is {found.state}; a picture needs its output, so wait until it is done")
    source = Sources(context.home, keep_sources=True).look_up(found)
    result = output_path(context.home.outbox, found)
    for path, what in ((source, "source"), (result, "output")):
        if path is None or not path.is_file():
            raise SourceGone(f"the {what} of job {found.id} is not there any more; a picture needs both ends")
    assert source is not None
    before, after = analyse(
        [source, result],
        backend=context.settings.worker.backend,
        home=context.home.root,
        dialect=found.settings.dialect,
    )
    sides = Side(f"in: {source.name}", source, before.pitch), Side(f"out: {result.name}", result, after.pitch)
    draw_conversion(*sides, before.borders_s, picture)
    return picture


def _context(ctx: typer.Context) -> Context:
    context: Context = ctx.obj
    return context


def _open(ctx: typer.Context) -> Queue:
    from rvc_batch.jobs.queue import Queue

    return Queue.open(_context(ctx).home.database, owner=False, busy_waits=COMMAND_BUSY_WAITS)


def _failed(ctx: typer.Context, code: str) -> list[int]:
    """Return the numbers of failed jobs, of this code if one is given, oldest first."""
    from rvc_batch.jobs.models import JobState
    from rvc_batch.jobs.reading import QueueReader

    with closing(QueueReader.open_readonly(_context(ctx).home.database)) as reader:
        return [job.id for job in reader.list(state=JobState.FAILED, error_code=code or None)][::-1]


def _each(ctx: typer.Context, numbers: list[int], verb: Callable[[Queue, int], Job], done: str, *, json: bool) -> None:
    """Do it to each job; one that cannot be changed does not keep the others from it, but makes the exit code 1."""
    changed: list[Job] = []
    refused: list[RvcBatchError] = []
    with closing(_open(ctx)) as queue:
        for number in numbers:
            try:
                changed.append(verb(queue, number))
            except RvcBatchError as e:
                refused.append(e)
    if json:
        errors = [{"code": error.code, "message": str(error)} for error in refused]
        typer.echo(as_json(jobs=changed, errors=errors))
    else:
        for found in changed:
            asked = "to be cancelled at its next segment" if found.cancel_requested else done
            typer.echo(f"#{found.id} {printable(found.source_name)}: {asked}")
        for error in refused:
            typer.echo(f"error {error.code}: {printable(str(error))}", err=True)
    if refused:
        raise typer.Exit(1)


def _rows(found: list[Job]) -> Iterator[tuple[str, ...]]:
    now = time.time()
    yield "#", "state", "voice", "file", "audio", "speed", "attempt", "since", "error"
    for each in found:
        speed = each.seconds_in / each.wall_seconds if each.seconds_in and each.wall_seconds else None
        since = each.finished_at or each.started_at or each.queued_at or each.created_at
        yield (
            str(each.id),
            each.state,
            each.voice,
            each.source_name,
            length(each.seconds_in),
            "–" if speed is None else f"{speed:.1f}x",
            f"{each.attempt}/{each.max_attempts}",
            ago(since, now),
            "" if each.error is None else each.error.code,
        )


def _whole_job(found: Job, attempts: list[Attempt], events: list[Event]) -> Iterator[str]:
    now = time.time()
    yield f"#{found.id} {printable(found.source_name)} → {printable(found.voice)}   {found.state}"
    yield columns(_job_facts(found), indent="  ")
    yield f"  settings  {found.settings.to_json()}"
    for attempt in attempts:
        ended = "–" if attempt.ended_at is None else length(attempt.ended_at - attempt.started_at)
        signal = "" if attempt.signal is None else f"   signal {attempt.signal}"
        rss = "" if attempt.peak_rss is None else f"   peak {size(attempt.peak_rss)}"
        yield ""
        outcome = attempt.outcome or "running"
        yield f"  attempt {attempt.claim_no}   {outcome}   {ended}   pid {attempt.pid}{signal}{rss}"
        if attempt.stage_seconds:
            yield f"    {'   '.join(f'{stage} {seconds:.2f} s' for stage, seconds in attempt.stage_seconds.items())}"
        if attempt.error is not None:
            stage = f" in {attempt.error.stage}" if attempt.error.stage else ""
            yield f"    {attempt.error.code}{stage}: {printable(attempt.error.message)}"
            yield from (f"      {printable(line)}" for line in attempt.error.traceback.splitlines())
    yield ""
    yield columns(
        ((ago(e.at, now), f"{e.from_state or 'new'} → {e.to_state}", e.actor, e.note) for e in events), indent="  "
    )


def _job_facts(found: Job) -> Iterator[tuple[str, str]]:
    yield "source", found.source_rel.decode("utf-8", "replace")
    yield "output", found.output_rel.decode("utf-8", "replace")
    yield "audio", length(found.seconds_in)
    yield "attempts", f"{found.attempt} of {found.max_attempts}"
    if found.error is not None:
        yield "error", f"{found.error.code}: {found.error.message}"
    if found.duplicate_of is not None:
        yield "same as", f"#{found.duplicate_of}"
    for warning in found.warnings:
        yield "warning", warning

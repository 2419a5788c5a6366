"""`rvc-batch convert`, `render-again` and `pitch`: the engine without the queue."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json

if TYPE_CHECKING:
    from rvc_batch.engine.converter import Progress
    from rvc_batch.engine.types import ConversionReport

Option = typer.Option
FRAMES_PER_SECOND = 100  # of f0


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command()(convert)
    app.command("render-again")(render_again)
    app.command()(pitch)


def convert(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", help="Audio file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write; its suffix chooses the format.")],
    voice: Annotated[str, Option(help="Name of a voice in the library, or a .pth file.")] = "",
    index: Annotated[Path | None, Option(help="Retrieval index; else the one beside the voice.")] = None,
    f0_file: Annotated[Path | None, Option(help="CSV of time in s and f0 in Hz to use where it has rows.")] = None,
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
    backend: Annotated[str | None, Option(help="mlx or torch.")] = None,
    memory_limit: Annotated[str | None, Option(help="Such as '2 GB'; as configured for the worker, else none.")] = None,
    precision: Annotated[str | None, Option(help="float32, float16 or bfloat16; half precision is for GPUs.")] = None,
    quantize_bits: Annotated[int | None, Option(help="Bits of linear layers: 8 or 4; 0 = not quantised.")] = None,
    force: Annotated[bool, Option(help="Replace OUT if it is there.")] = False,
    json: options.AsJson = False,
) -> None:
    """Convert one file."""
    import rvc_batch
    from rvc_batch.engine.memory import parse_size
    from rvc_batch.engine.precision import Precision
    from rvc_batch.jobs.presets import Presets

    context: Context = ctx.obj
    worker = context.settings.worker
    changes = {
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
    chosen = voice or context.settings.default_voice
    preset = Presets(voices=context.home.voices).of_voice(chosen) if chosen and not chosen.endswith(".pth") else None
    settings = context.settings.conversion_settings().with_changes(
        **({} if preset is None else dict(preset.values)) | {k: v for k, v in changes.items() if v is not None}
    )
    with _ProgressBar(is_shown=sys.stderr.isatty() and not json) as bar:
        report = rvc_batch.convert(
            source,
            target,
            voice=chosen,
            index=index,
            f0_file=f0_file,
            settings=settings,
            is_format_given=output_format is not None,
            backend=backend or worker.backend,
            precision=Precision(
                worker.precision if precision is None else precision,
                worker.quantize_bits if quantize_bits is None else quantize_bits,
            ),
            home=context.home.root,
            overwrite=force,
            memory_limit=worker.memory_limit_bytes() if memory_limit is None else parse_size(memory_limit),
            progress=bar.update,
        )
    _print_report(report, target, json=json)


def render_again(
    ctx: typer.Context,
    result: Annotated[Path, typer.Argument(metavar="FILE", help="A result of rvc-batch, with its tags.")],
    source: Annotated[Path | None, Option(help="Its source; else it is looked for by its content.")] = None,
    output: Annotated[Path | None, Option("--output", "-o", help="File to write; else FILE (again).")] = None,
    voice: Annotated[str, Option(help="The same voice, if it has another name now; or its .pth file.")] = "",
    index: Annotated[Path | None, Option(help="The same index, if it does not lie beside the voice.")] = None,
    f0_file: Annotated[Path | None, Option(help="The same f0 file, if it was made with one.")] = None,
    force: Annotated[bool, Option(help="Replace the file to write if it is there.")] = False,
    json: options.AsJson = False,
) -> None:
    """Make a result again from its own tags, and compare. Ends with 1 if the bytes differ."""
    import rvc_batch

    context: Context = ctx.obj
    with _ProgressBar(is_shown=sys.stderr.isatty() and not json) as bar:
        again = rvc_batch.render_again(
            result,
            output,
            source=source,
            voice=voice,
            index=index,
            f0_file=f0_file,
            home=context.home.root,
            overwrite=force,
            progress=bar.update,
        )
    if json:
        facts = dataclasses.asdict(again.report)
        typer.echo(
            as_json(**facts, output=str(again.target), source=str(again.source), is_identical=again.is_identical)
        )
    else:
        same = "the same bytes as" if again.is_identical else "not the same bytes as"
        typer.echo(f"{again.target}: {same} {result}")
    if not again.is_identical:
        typer.echo("another machine, or other versions of the libraries, rendered the first one", err=True)
        raise typer.Exit(1)


def pitch(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Audio file.")],
    output: Annotated[Path | None, Option("--output", "-o", help="CSV file; else standard output.")] = None,
    backend: Annotated[str | None, Option(help="mlx or torch.")] = None,
    dialect: Annotated[str, Option(help="rvc-2023, rvc-2026 or applio.")] = "rvc-2023",
    pitch_method: options.PitchMethodName = None,
    pitch_threshold: options.PitchThreshold = None,
    json: options.AsJson = False,
) -> None:
    """Measure f0 alone: CSV of time in seconds and Hz, 0 where unvoiced, as `convert --f0-file` reads it."""
    import rvc_batch
    from rvc_batch.engine.f0_file import format_f0

    context: Context = ctx.obj
    configured = context.settings.conversion_settings()
    changes = {"pitch_method": pitch_method, "pitch_threshold": pitch_threshold}
    chosen = configured.with_changes(**{k: v for k, v in changes.items() if v is not None})
    track = rvc_batch.pitch(
        source,
        backend=backend or context.settings.worker.backend,
        home=context.home.root,
        dialect=dialect,
        pitch_method=chosen.pitch_method,
        pitch_threshold=chosen.pitch_threshold,
    )
    if json:
        text = as_json(frames_per_second=FRAMES_PER_SECOND, f0_hz=[round(float(hz), 3) for hz in track.f0]) + "\n"
    else:
        text = format_f0(track)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="ascii")


class _ProgressBar:
    """A tqdm bar over the seconds of the input, shown in a terminal only."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: Any = None

    def update(self, progress: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=round(progress.seconds_total, 1), unit="s", disable=not self._is_shown, leave=False)
        is_synth = progress.stage == "synth"  # what the bar itself shows
        self._bar.set_description(progress.stage if is_synth else f"{progress.stage} {progress.stage_share:.0%}")
        self._bar.update(round(progress.seconds_done, 1) - self._bar.n)

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _print_report(report: ConversionReport, target: Path, *, json: bool) -> None:
    if json:
        typer.echo(as_json(**dataclasses.asdict(report), realtime_factor=report.realtime_factor, output=str(target)))
        return
    typer.echo(
        f"{target}: {report.seconds_out:.2f} s at {report.rate_out} Hz, {report.segments} segment(s), "
        f"{report.realtime_factor:.2f}x realtime ({report.backend})"
    )
    if report.auto_key:
        typer.echo(f"auto key: {report.auto_key:+d} semitones")
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)

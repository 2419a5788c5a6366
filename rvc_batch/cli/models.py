"""`rvc-batch import` and `rvc-batch voices`: model files and the library of voices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json

if TYPE_CHECKING:
    from rvc_batch.engine.voice import Voice
    from rvc_batch.importers.adopt import Adopted
    from rvc_batch.importers.index import IndexInfo
    from rvc_batch.importers.store import ModelStore, VoiceListing

KIND_NAMES = {"hubert": "content network", "rmvpe": "pitch network", "synthesizer": "voice", "index": "index"}


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command("import")(import_models)
    app.command()(voices)


def import_models(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Model files or folders of any kind.")],
    json: options.AsJson = False,
) -> None:
    """Import voices (.pth), indexes, HuBERT and RMVPE files: recognised by content, copied into the home."""
    from rvc_batch.importers.adopt import adopt

    store = _store(ctx)
    adopted = []
    for path in paths:
        adopted.append(adopt(path, store))
        if not json:
            _print_line(_adopted_line(adopted[-1]))
    if json:
        typer.echo(as_json(imported=[_adopted_values(a) for a in adopted]))


def voices(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Import and describe this voice.")] = "",
    json: options.AsJson = False,
) -> None:
    """List the voices of the library, or import and describe one."""
    store = _store(ctx)
    wanted = store.voice(name).name if name else None  # imports it, or raises what is wrong with it
    listings = [x for x in store.listing() if wanted in (None, x.name)]
    values = [_listing_values(x) for x in listings]
    if json:
        typer.echo(as_json(voices=values))
    elif name:
        _print_rows([(key, _text(value)) for key, value in values[0].items()])
    elif not listings:
        typer.echo(f"no voices in {store.voices}; copy a .pth there or run `rvc-batch import FILE`")
    else:
        _print_listings(listings)


def _store(ctx: typer.Context) -> ModelStore:
    from rvc_batch.importers.store import ModelStore

    context: Context = ctx.obj
    return ModelStore(models=context.home.models, voices=context.home.voices, cache=context.home.cache)


def _voice_values(voice: Voice | None) -> dict[str, Any]:
    if voice is None:
        keys = ("version", "sample_rate", "has_f0", "feature_dim", "n_speakers", "embedder", "vocoder", "sha256")
        return dict.fromkeys(keys)
    return {
        "version": voice.config.version,
        "sample_rate": voice.sample_rate,
        "has_f0": voice.config.has_f0,
        "feature_dim": voice.config.feature_dim,
        "n_speakers": voice.config.n_speakers,
        "embedder": voice.embedder,
        "vocoder": voice.vocoder,
        "sha256": voice.sha256,
    }


def _index_values(path: Path | None, info: IndexInfo | None) -> dict[str, Any]:
    return {
        "index": None if path is None else str(path),
        "index_dim": None if info is None else info.dim,
        "index_vectors": None if info is None else info.count,
        "index_bytes": None if info is None else info.size,
    }


def _listing_values(listing: VoiceListing) -> dict[str, Any]:
    return {
        "name": listing.name,
        "path": str(listing.path),
        "imported": listing.is_imported,
        **_voice_values(listing.voice),
        **_index_values(listing.index, listing.index_info),
        "warnings": list(listing.warnings),
        "error": listing.error,
    }


def _adopted_values(adopted: Adopted) -> dict[str, Any]:
    values = {
        "source": str(adopted.source),
        "kind": adopted.kind,
        "placed": str(adopted.placed),
        "copied": adopted.is_copied,
    }
    if adopted.voice is not None:
        values |= {"name": adopted.voice.name, **_voice_values(adopted.voice)}
        values["index"] = None if adopted.voice.index is None else str(adopted.voice.index)
    if adopted.index_info is not None:
        values |= _index_values(adopted.placed, adopted.index_info)
    return values


def _adopted_line(adopted: Adopted) -> str:
    details = [KIND_NAMES[adopted.kind]]
    if adopted.voice is not None:
        details = [f"voice {adopted.voice.name}", adopted.voice.config.version, _rate(adopted.voice.sample_rate)]
        details += [] if adopted.voice.config.has_f0 else ["without f0"]
        details += ["no index" if adopted.voice.index is None else f"index {adopted.voice.index.name}"]
    if adopted.index_info is not None:
        details.append(f"{adopted.index_info.count} vectors of {adopted.index_info.dim}")
    details.append(f"copied to {adopted.placed}" if adopted.is_copied else f"at {adopted.placed}")
    return f"{adopted.source.name}: {', '.join(details)}"


def _print_line(line: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(line), soft_wrap=True)  # control characters in file names are stripped


def _print_rows(rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)


def _print_listings(listings: list[VoiceListing]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("voice", "version", "rate", "f0", "speakers", "index", "notes"):
        table.add_column(heading)
    for listing in listings:
        voice = listing.voice
        known = ["—"] * 4
        if voice is not None:
            pitch = "yes" if voice.config.has_f0 else "no"
            known = [voice.config.version, _rate(voice.sample_rate), pitch, str(voice.config.n_speakers)]
        index = "—"
        if listing.index is not None:
            count = "?" if listing.index_info is None else f"{listing.index_info.count} vectors"
            index = f"{listing.index.name} ({count})"
        notes = ["not imported yet"] if voice is None and listing.error is None else []
        notes += [*listing.warnings, *([f"error: {listing.error}"] if listing.error else [])]
        cells = [listing.name, *known, index, "; ".join(notes)]
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    Console().print(table)


def _rate(hertz: int) -> str:
    return f"{hertz / 1000:g} kHz"


def _text(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)

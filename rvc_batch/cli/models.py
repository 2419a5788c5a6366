"""`rvc-batch import`: model files of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvc_batch.cli import options
from rvc_batch.cli.printing import as_json, printable
from rvc_batch.cli.voice_text import index_values, model_store, rate, voice_values

if TYPE_CHECKING:
    from rvc_batch.importers.adopt import Adopted

KIND_NAMES = {"hubert": "content network", "rmvpe": "pitch network", "synthesizer": "voice", "index": "index"}


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command("import")(import_models)


def import_models(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Model files or folders of any kind.")],
    json: options.AsJson = False,
) -> None:
    """Import voices (.pth, folder, zip), indexes, HuBERT and RMVPE: recognised by content, copied into the home."""
    from rvc_batch.importers.adopt import adopt

    store = model_store(ctx)
    adopted = []
    for path in paths:
        adopted.append(adopt(path, store))
        if not json:
            typer.echo(printable(adopted_line(adopted[-1])))
    if json:
        typer.echo(as_json(imported=[adopted_values(a) for a in adopted]))


def adopted_values(adopted: Adopted) -> dict[str, Any]:
    """Return what became of a file as JSON values."""
    values = {
        "source": str(adopted.source),
        "kind": adopted.kind,
        "placed": str(adopted.placed),
        "copied": adopted.is_copied,
    }
    if adopted.voice is not None:
        values |= {"name": adopted.voice.name, **voice_values(adopted.voice)}
        values["index"] = None if adopted.voice.index is None else str(adopted.voice.index)
    if adopted.index_info is not None:
        values |= index_values(adopted.placed, adopted.index_info)
    return values


def adopted_line(adopted: Adopted) -> str:
    """Return what became of a file in one line."""
    details = [KIND_NAMES[adopted.kind]]
    if adopted.voice is not None:
        details = [f"voice {adopted.voice.name}", adopted.voice.config.version, rate(adopted.voice.sample_rate)]
        details += [] if adopted.voice.config.has_f0 else ["without f0"]
        details += ["no index" if adopted.voice.index is None else f"index {adopted.voice.index.name}"]
    if adopted.index_info is not None:
        details.append(f"{adopted.index_info.count} vectors of {adopted.index_info.dim}")
    details.append(f"copied to {adopted.placed}" if adopted.is_copied else f"at {adopted.placed}")
    return f"{adopted.source.name}: {', '.join(details)}"

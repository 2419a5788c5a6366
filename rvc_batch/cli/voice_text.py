"""What `voices` and `import` print of a voice: JSON values, rows of one voice, the table of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rvc_batch.engine.voice import Voice
    from rvc_batch.importers.index import IndexInfo
    from rvc_batch.importers.store import ModelStore, VoiceListing

HEADINGS = ("voice", "version", "rate", "f0", "speakers", "index", "notes")


def model_store(ctx: typer.Context) -> ModelStore:
    """Return the store of the home, with the roots that are configured."""
    from rvc_batch.importers.store import ModelStore

    context: Context = ctx.obj
    return ModelStore.of(context.home, context.settings.library.folders(context.home))


def voice_values(voice: Voice | None) -> dict[str, Any]:
    """Return what a voice says of itself as JSON values; all null for one that is not imported."""
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


def index_values(path: Path | None, info: IndexInfo | None) -> dict[str, Any]:
    """Return what an index says of itself as JSON values."""
    return {
        "index": None if path is None else str(path),
        "index_dim": None if info is None else info.dim,
        "index_vectors": None if info is None else info.count,
        "index_bytes": None if info is None else info.size,
    }


def listing_values(listing: VoiceListing) -> dict[str, Any]:
    """Return everything that is known of a voice as JSON values."""
    return {
        "name": listing.name,
        "path": str(listing.path),
        "root": None if listing.root is None else str(listing.root),
        "imported": listing.is_imported,
        **voice_values(listing.voice),
        **index_values(listing.index, listing.index_info),
        "warnings": list(listing.warnings),
        "error": listing.error,
    }


def print_voice(values: dict[str, Any]) -> None:
    """Print one voice, a line per fact."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(Text(name, style="bold"), Text(printable(_text(value)), overflow="fold"))
    Console().print(table)


def print_listings(listings: list[VoiceListing]) -> None:
    """Print all voices as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading)
    for listing in listings:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in _cells(listing)))
    Console().print(table)


def rate(hertz: int) -> str:
    """Return a sample rate for people."""
    return f"{hertz / 1000:g} kHz"


def _cells(listing: VoiceListing) -> list[str]:
    voice, known = listing.voice, ["—"] * 4
    if voice is not None:
        pitch = "yes" if voice.config.has_f0 else "no"
        known = [voice.config.version, rate(voice.sample_rate), pitch, str(voice.config.n_speakers)]
    index = "—"
    if listing.index is not None:
        count = "?" if listing.index_info is None else f"{listing.index_info.count} vectors"
        index = f"{listing.index.name} ({count})"
    notes = ["not imported yet"] if voice is None and listing.error is None else []
    notes += [] if listing.root is None else [f"in {listing.root}"]
    notes += [*listing.warnings, *([f"error: {listing.error}"] if listing.error else [])]
    return [listing.name, *known, index, "; ".join(notes)]


def _text(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = [f"{key} = {each}" for key, each in value.items()]
    return "; ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)

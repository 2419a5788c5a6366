"""`rvc-batch models`: the content and pitch networks of the home, and where to get the published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json

if TYPE_CHECKING:
    from rvc_batch.importers.fetch import Published
    from rvc_batch.importers.networks import NetworkListing
    from rvc_batch.importers.store import ModelStore

MISSING_EXIT = 66  # as for E_MODEL_MISSING


def register(app: typer.Typer) -> None:
    """Add the command group to the tree."""
    group = typer.Typer(
        name="models", help="The content and pitch networks: what is there, and fetching it.", no_args_is_help=True
    )
    for command in (status, fetch):
        group.command()(command)
    app.add_typer(group)


def status(ctx: typer.Context, json: options.AsJson = False) -> None:
    """Say which networks are present, and whether they are imported and the published ones."""
    from rvc_batch.importers.networks import list_networks

    listings = list_networks(_store(ctx))
    if json:
        typer.echo(as_json(networks=[_values(listing) for listing in listings]))
    else:
        for listing in listings:
            typer.echo(_line(listing))
    if any(listing.path is None for listing in listings):
        raise typer.Exit(MISSING_EXIT)


def fetch(ctx: typer.Context, json: options.AsJson = False) -> None:
    """Fetch the published networks that are missing (370 MB), verified; goes on where it was interrupted."""
    from rvc_batch.importers.fetch import PUBLISHED
    from rvc_batch.importers.networks import content_network
    from rvc_batch.importers.store import HUBERT_FILE

    store = _store(ctx)
    results = []
    for file in PUBLISHED:
        other = content_network(store) if file.name == HUBERT_FILE else None  # a folder serves as well
        fetched = False if other is not None and other.is_dir() else _fetch(file, store, is_quiet=json)
        placed = store.models / file.name if fetched or other is None else other
        results.append({"name": file.name, "path": str(placed), "fetched": fetched})
        if not json:
            typer.echo(f"{placed}: {'fetched and verified' if fetched else 'there already'}")
    if json:
        typer.echo(as_json(networks=results))


def _fetch(file: Published, store: ModelStore, *, is_quiet: bool) -> bool:
    from tqdm import tqdm

    from rvc_batch.importers import fetch as hub

    with tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, disable=True if is_quiet else None) as bar:

        def show(there: int) -> None:
            bar.update(there - bar.n)

        return hub.fetch(file, store.models, file.url(), show)


def _store(ctx: typer.Context) -> ModelStore:
    from rvc_batch.importers.store import ModelStore

    context: Context = ctx.obj
    return ModelStore(models=context.home.models, voices=context.home.voices, cache=context.home.cache)


def _values(listing: NetworkListing) -> dict[str, Any]:
    return {
        "role": listing.role,
        "path": None if listing.path is None else str(listing.path),
        "bytes": listing.size,
        "imported": listing.is_imported,
        "published": listing.is_published,
        "sha256": listing.sha256,
        "error": listing.error,
    }


def _line(listing: NetworkListing) -> str:
    if listing.path is None:
        return f"{listing.role} network: missing; `rvc-batch models fetch` gets it, or `rvc-batch import FILE`"
    known = {True: "the published one", False: "not the published one", None: "not imported yet"}
    state = f"cannot be used: {listing.error}" if listing.error else known[listing.is_published]
    return f"{listing.role} network: {listing.path}, {listing.size / 1e6:.1f} MB, {state}"

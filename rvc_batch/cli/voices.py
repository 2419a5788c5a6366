"""`rvc-batch voices`: the library of voices. Alone it lists them, with a name it describes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.models import adopted_line, adopted_values
from rvc_batch.cli.printing import as_json, printable
from rvc_batch.cli.voice_text import listing_values, model_store, print_listings, print_voice

if TYPE_CHECKING:
    from rvc_batch.importers.store import ModelStore

EXIT_BROKEN = 66  # as for the errors that `check` finds
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a voice.")]


class _Voices(TyperGroup):
    """Takes `voices` for `voices list`, and `voices NAME` for `voices show NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next((arg for arg in args if not arg.startswith("-")), None)
        if first is not None and first not in self.commands:
            args = ["show", *args]
        elif first is None and "--help" not in args:
            args = ["list", *args]
        remaining: list[str] = super().parse_args(ctx, args)
        return remaining


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    about = "List the voices of the library; `voices NAME` describes one."
    group = typer.Typer(name="voices", help=about, cls=_Voices)
    group.command("list")(list_voices)
    for command in (show, add, remove, rename, check, blend):
        group.command()(command)
    app.add_typer(group)


def list_voices(ctx: typer.Context, json: options.AsJson = False) -> None:
    """List the voices of the home and of the configured roots; nothing is imported."""
    store = model_store(ctx)
    listings, faults = store.listing(), store.root_faults()
    if json:
        typer.echo(as_json(voices=[listing_values(x) for x in listings], faults=faults))
        return
    if listings:
        print_listings(listings)
    else:
        typer.echo(printable(f"no voices in {store.voices}; copy a .pth there or run `rvc-batch import FILE`"))
    for fault in faults:
        typer.echo(f"warning: {printable(fault)}", err=True)


def show(ctx: typer.Context, name: Name, json: options.AsJson = False) -> None:
    """Import a voice if that was not done yet, and describe it; `voices NAME` is the short form."""
    store = model_store(ctx)
    wanted = store.voice(name).name  # raises what is wrong with it
    values = [listing_values(x) | _settings(ctx, x.name) for x in store.listing() if x.name == wanted]
    if json:
        typer.echo(as_json(voices=values))
    else:
        print_voice(values[0])


def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A voice: .pth, folder or zip file.")],
    name: Annotated[str, typer.Option(help="What it is to be called; else as the file or folder.")] = "",
    json: options.AsJson = False,
) -> None:
    """Copy a voice with its index into the home."""
    from rvc_batch.importers.adopt import adopt_voice

    adopted = adopt_voice(path, model_store(ctx), name=name)
    typer.echo(as_json(added=adopted_values(adopted)) if json else printable(adopted_line(adopted)))


def remove(ctx: typer.Context, name: Name, json: options.AsJson = False) -> None:
    """Move a voice of the home into voices/.trash, unless jobs still need it."""
    from rvc_batch.importers.shelving import remove as remove_voice

    context: Context = ctx.obj
    store = model_store(ctx)
    _refuse_if_needed(context, store, name)
    folder = remove_voice(store, name, context.home.trash)
    typer.echo(as_json(removed=name, trash=str(folder)) if json else printable(f"{name} is in {folder} now"))
    _warn_of_mentions(context, name)


def rename(
    ctx: typer.Context,
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    json: options.AsJson = False,
) -> None:
    """Rename a voice of the home, its index and its settings, unless jobs still need it."""
    from rvc_batch.importers.shelving import rename as rename_voice

    context: Context = ctx.obj
    store = model_store(ctx)
    _refuse_if_needed(context, store, name)
    files = rename_voice(store, name, new)
    names = ", ".join(file.name for file in files)
    shown = as_json(renamed=new, files=[str(f) for f in files]) if json else printable(f"{name} is {names} now")
    typer.echo(shown)
    _warn_of_mentions(context, name)


def check(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of a voice; else all of them.")] = "",
    json: options.AsJson = False,
) -> None:
    """Import voices anew, look at every number of them and of their indexes; exit code 66 if one is unusable."""
    store = model_store(ctx)
    results = [_checked(store, each) for each in ([name] if name else store.voice_names())]
    if json:
        typer.echo(as_json(checked=results))
    else:
        for result in results:
            word = "ok" if result["error"] is None else f"unusable: {result['error']}"
            typer.echo(printable("; ".join([f"{result['name']}: {word}", *result["warnings"]])))
    if any(result["error"] is not None for result in results):
        raise typer.Exit(EXIT_BROKEN)


def blend(
    ctx: typer.Context,
    one: Annotated[str, typer.Argument(metavar="A", help="Name of the first voice.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Name of the second voice, of the same architecture.")],
    name: Annotated[str, typer.Option(help="What the new voice is to be called.")],
    weight: Annotated[float, typer.Option(help="Share of A, 0 to 1.")] = 0.5,
    index: Annotated[Path | None, typer.Option(help="Retrieval index of the new voice; else it has none.")] = None,
    json: options.AsJson = False,
) -> None:
    """Mix two voices into a new one: every number is weight · A + (1 − weight) · B."""
    from rvc_batch.importers.blend import blend as blend_voices

    blended = blend_voices(model_store(ctx), one, other, weight=weight, name=name, index=index)
    typer.echo(as_json(blended=adopted_values(blended)) if json else printable(adopted_line(blended)))


def _warn_of_mentions(context: Context, voice: str) -> None:
    from rvc_batch.jobs.presets import Presets
    from rvc_batch.jobs.voice_use import mentions

    for place in mentions(Presets(context.home.recipes), context.settings, voice):
        typer.echo(printable(f"warning: {place} still names {voice}"), err=True)


def _settings(ctx: typer.Context, voice: str) -> dict[str, Any]:
    from rvc_batch.jobs.presets import Presets

    context: Context = ctx.obj
    preset = Presets(voices=context.home.voices).of_voice(voice)
    return {"settings": {} if preset is None else dict(preset.values)}


def _checked(store: ModelStore, name: str) -> dict[str, Any]:
    from rvc_batch.errors import ModelError

    result: dict[str, Any] = {"name": name, "error": None, "code": None, "warnings": []}
    try:
        put_right = store.check(name)
        listed = [warning for x in store.listing() if x.name == name for warning in x.warnings]
        return result | {"warnings": [*put_right, *listed]}
    except ModelError as e:
        return result | {"error": str(e), "code": e.code}


def _refuse_if_needed(context: Context, store: ModelStore, name: str) -> None:
    from rvc_batch.importers import library
    from rvc_batch.jobs.voice_use import refuse_if_needed

    refuse_if_needed(context.home, library.find(store.voices, name, store.roots).name)

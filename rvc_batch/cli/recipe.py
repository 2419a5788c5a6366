"""`rvc-batch recipe`: what would apply to a file in the inbox, and which recipes there are."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvc_batch.cli import options
from rvc_batch.cli.context import Context
from rvc_batch.cli.printing import as_json, columns, printable

if TYPE_CHECKING:
    from rvc_batch.jobs.request import Request

EXIT_INVALID = 78  # as for the errors that `list` shows


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    group = typer.Typer(name="recipe", help="Settings and voices for a folder of the inbox.", no_args_is_help=True)
    group.command()(show)
    group.command("list")(list_recipes)
    app.add_typer(group)


def show(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file in the inbox; it need not be there yet.")],
    json: options.AsJson = False,
) -> None:
    """Print voice, output and settings that a file in the inbox would get, and where each value comes from."""
    from rvc_batch.jobs.explain import locate
    from rvc_batch.jobs.request import output_rel, read_requests

    context: Context = ctx.obj
    rel, _ = locate(context.home, path)
    requests = read_requests(context.home.inbox / os.fsdecode(rel), rel, _choices(context))
    jobs: list[dict[str, Any]] = [
        {
            "voice": request.voice,
            "voice_from": request.chosen_by,
            "output": os.fsdecode(
                output_rel(rel, request.settings, variant=request.voice if len(requests) > 1 else "")
            ),
            "settings": _origins(context, request),
        }
        for request in requests
    ]
    if json:
        typer.echo(as_json(file=rel, jobs=jobs))
        return
    for job in jobs:
        typer.echo(printable(f"voice {job['voice']} ({job['voice_from']}) → outbox/{job['output']}"))
        rows = [(name, str(entry["value"]), entry["from"]) for name, entry in job["settings"].items()]
        typer.echo(columns(rows, indent="  "))


def list_recipes(ctx: typer.Context, json: options.AsJson = False) -> None:
    """List the recipes with their voices; exit code 78 if one cannot be used."""
    from rvc_batch.errors import RecipeInvalid, VoiceUnknown
    from rvc_batch.jobs.request import read_requests

    context: Context = ctx.obj
    choices = _choices(context)
    recipes = list[dict[str, Any]]()
    for name in choices.presets.recipe_names():
        recipe: dict[str, Any] = {"name": name, "voices": [], "settings": {}, "error": None}
        try:
            found = choices.presets.recipe(name)
            recipe |= {"voices": list(found.voices), "settings": dict(found.values)}
            if found.voices:
                read_requests(context.home.inbox / name / "any", os.fsencode(f"{name}/any"), choices)
        except (RecipeInvalid, VoiceUnknown) as e:
            recipe["error"] = str(e)
        recipes.append(recipe)
    if json:
        typer.echo(as_json(recipes=recipes))
    elif not recipes:
        typer.echo(printable(f"no recipes in {context.home.recipes}"))
    else:
        typer.echo(columns([_row(recipe) for recipe in recipes]))
    if any(recipe["error"] is not None for recipe in recipes):
        raise typer.Exit(EXIT_INVALID)


def _row(recipe: dict[str, Any]) -> tuple[str, str, str]:
    settings = ", ".join(f"{key} = {value}" for key, value in recipe["settings"].items())
    said = settings if recipe["error"] is None else f"unusable: {recipe['error']}"
    return recipe["name"], ", ".join(recipe["voices"]) or "–", said


def _choices(context: Context) -> Any:
    from rvc_batch.jobs.presets import Presets
    from rvc_batch.jobs.renderer import voice_names
    from rvc_batch.jobs.request import Choices

    home, settings = context.home, context.settings
    return Choices(
        voice_names(home, settings),
        settings.default_voice,
        settings.conversion_settings(),
        Presets(home.recipes, home.voices),
    )


def _origins(context: Context, request: Request) -> dict[str, dict[str, Any]]:
    """Return each setting with its value and the file it comes from."""
    origin = dict.fromkeys(context.settings.conversion, context.home.config_file.name)
    for preset in request.presets:
        origin |= dict.fromkeys(preset.values, preset.name)
    return {
        name: {"value": value, "from": origin.get(name, "default")}
        for name, value in dataclasses.asdict(request.settings).items()
    }

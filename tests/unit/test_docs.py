"""The documentation names what there is: every command and every setting."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from pydantic import BaseModel

from rvc_batch.cli import build_app
from rvc_batch.config import Settings
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import SettingsInvalid

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

HEAD = """\
# Commands

Every command takes `rvc-batch --home DIR` before its name; without it the home is `RVC_BATCH_HOME`, the checkout, or
`~/rvc-batch`. With `--json` a command prints one JSON object that has a `version`. An error is one sentence on standard
error with its code ([errors](errors.md)), and an exit code that is not 0.

This page is written by `pytest tests/unit/test_docs.py --record`; the test fails when it is not what the commands say.
"""


def test_every_command_is_in_the_readme_and_has_help() -> None:
    group = typer.main.get_command(build_app())
    commands = group.commands  # type: ignore[attr-defined]
    assert len(commands) > 10
    for name, command in commands.items():
        assert command.help, f"{name} has no help"
        assert re.search(rf"`(rvc-batch )?{name}\b", README), f"{name} is not in the README"


def test_every_command_has_help_json_and_a_current_entry(recorded: Callable[[Path, str], None]) -> None:
    commands = dict(_commands(typer.main.get_command(build_app()), "rvc-batch"))
    assert len(commands) > 20
    page = HEAD
    for name, command in commands.items():
        assert command.help, f"{name} has no help"
        assert any("--json" in option.opts for option in command.params), f"{name} has no --json"
        page += f"\n## `{name}`\n\n{inspect.cleandoc(command.help)}\n\n| | |\n|---|---|\n"
        for option in command.params:
            assert option.help, f"{name}: {option.name} has no help"  # type: ignore[attr-defined]
            page += f"| {_shown(option)} | {option.help.replace('|', '¦')} |\n"  # type: ignore[attr-defined]
    recorded(ROOT / "docs" / "commands.md", page)


def _commands(command: Any, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below this one that is no group."""
    for part, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {part}")
    if not hasattr(command, "commands"):
        yield name, command


def _shown(option: Any) -> str:
    if option.param_type_name == "argument":
        return f"`{option.metavar or option.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    is_shown = not option.is_flag and option.default not in (None, "", [])
    return f"{names} (`{getattr(option.default, 'value', option.default)}`)" if is_shown else names


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", README, re.M))
    for field in dataclasses.fields(ConversionSettings):
        default = field.default
        shown = f"{default:g}" if isinstance(default, int | float) else str(default)
        assert rows[field.name] == shown, field.name


def test_every_range_in_the_readme_is_where_a_setting_is_refused() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", README, re.M))
    numeric = {
        f.name: type(f.default) for f in dataclasses.fields(ConversionSettings) if not isinstance(f.default, str)
    }
    assert {name for name in rows if rows[name] == "see right"}.isdisjoint(numeric)
    for name, kind in numeric.items():
        found = re.fullmatch(r"(?:0, )?(-?[\d.]+) to (-?[\d.]+|2⁶³-1)(?:, odd)?", rows[name])
        assert found, (name, rows[name])
        low, high = (kind(2**63 - 1 if text == "2⁶³-1" else float(text)) for text in found.groups())
        step = 2 if "odd" in rows[name] else 1 if kind is int else 1e-3
        for allowed in (low, high):
            assert getattr(ConversionSettings().with_changes(**{name: allowed}), name) == allowed
        for refused in (low - step, high + step):
            with pytest.raises(SettingsInvalid, match=name):
                ConversionSettings().with_changes(**{name: refused})


def test_every_key_of_the_configuration_is_in_the_operations_guide_with_its_default() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("## Settings")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]*?) ?\|", guide, re.M))
    assert rows == dict(_keys(Settings()))


def _keys(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key with its default as the table shows it."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield f"{prefix}{name}", str(value).lower()
        else:
            shown = "" if value in ("", (), {}) else f"{value:g}" if isinstance(value, float) else str(value)
            yield f"{prefix}{name}", shown


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"

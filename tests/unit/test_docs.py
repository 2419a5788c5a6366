"""The documentation names what there is: every command and every setting."""

import dataclasses
import re
from pathlib import Path

import typer

from rvc_batch.cli import build_app
from rvc_batch.engine.settings import ConversionSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme_and_has_help() -> None:
    group = typer.main.get_command(build_app())
    commands = group.commands  # type: ignore[attr-defined]
    assert len(commands) > 10
    for name, command in commands.items():
        assert command.help, f"{name} has no help"
        assert re.search(rf"`(rvc-batch )?{name}\b", README), f"{name} is not in the README"


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", README, re.M))
    for field in dataclasses.fields(ConversionSettings):
        default = field.default
        shown = f"{default:g}" if isinstance(default, int | float) else str(default)
        assert rows[field.name] == shown, field.name


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"

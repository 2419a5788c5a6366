"""docs/faults.md names every row once, and every test it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = 144
MARKS = ("not yet", "needs macOS", "needs PostgreSQL")
ROW = re.compile(r"^\| (\d+) \|(.*)\|$")
NAME = re.compile(r"`(test_\w+)`")


def rows() -> list[tuple[int, str]]:
    lines = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    return [(int(found[1]), found[2]) for line in lines if (found := ROW.match(line))]


def known_names() -> set[str]:
    """Return the names of all test functions, without importing any."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}
    return found


def test_every_row_is_there_once_in_order() -> None:
    assert [number for number, _ in rows()] == list(range(1, ROWS + 1))


def test_every_test_that_is_named_exists() -> None:
    named = {name for _, text in rows() for name in NAME.findall(text)}
    assert len(named) > 100
    assert named - known_names() == set()


def test_a_row_without_a_test_says_why() -> None:
    assert [n for n, text in rows() if not NAME.search(text) and not any(mark in text for mark in MARKS)] == []


def test_a_row_has_four_cells() -> None:
    assert [n for n, text in rows() if text.count("|") != 2] == []

"""How commands print: names that cannot drive the terminal, lengths, ages, sizes, aligned columns, JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

JSON_VERSION = 1
COLOURS = {"OK": "32", "BUSY": "32", "PAUSED": "33", "DEGRADED": "33", "DOWN": "31"}


def printable(text: str) -> str:
    """Return the text on one line, with everything escaped that a terminal would act on or not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def coloured(word: str) -> str:
    """Return the word in its colour in a terminal, and plain elsewhere or with NO_COLOR set."""
    if word not in COLOURS or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return word
    return f"\033[1;{COLOURS[word]}m{word}\033[0m"


def length(seconds: float | None) -> str:
    """Return a length of audio or time as 0:42, 31:07 or 1:02:11."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: float | None) -> str:
    """Return a time span in its greatest unit: 5 s, 3 min, 2 h, 6 d."""
    if seconds is None:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(then: float | None, now: float) -> str:
    """Return how long ago that was; a clock that was set back gives 0 s."""
    return "–" if then is None else f"{span(max(now - then, 0.0))} ago"


def size(count: int | None) -> str:
    """Return a number of bytes as 3.1 GB."""
    if count is None:
        return "–"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}" if count < 100 * scale else f"{count / scale:.0f} {unit}"
    return f"{count} bytes"


def columns(rows: Iterable[Sequence[str]], *, indent: str = "") -> str:
    """Return rows of cells as lines with aligned columns."""
    table = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column), default=0) for column in zip(*table, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(indent + line.rstrip() for line in padded)


def as_json(**values: Any) -> str:
    """Return one JSON object with the version of its layout; file names keep their bytes as surrogate escapes."""
    return json.dumps({"version": JSON_VERSION} | {name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

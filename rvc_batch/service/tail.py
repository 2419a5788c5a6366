"""The last lines of a log, without reading all of it."""

from __future__ import annotations

import os
from pathlib import Path

BLOCK_BYTES = 1 << 18


def tail(path: Path, count: int) -> list[str]:
    """Return the last lines of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - BLOCK_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]

"""Which `rvc-batch` a service starts: the installed entry point in a place that survives upgrades.

Links are never resolved: what they point to carries a version in its path and is gone after the next upgrade, while
the service goes on pointing there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rvc_batch.errors import ServiceFailed

NAME = "rvc-batch"
STABLE = ("~/.local/bin", "/opt/homebrew/bin", "/usr/local/bin", "/usr/bin")


def find_program(started_as: Path, interpreter: Path, stable: tuple[Path, ...] | None = None) -> tuple[Path, list[str]]:
    """Return the absolute path of the command that runs now, and warnings about it.

    Args:
        started_as: `sys.argv[0]`.
        interpreter: `sys.executable`; with `python -m rvc_batch` the command lies beside it.
        stable: folders that outlive upgrades, best first.

    Raises:
        ServiceFailed: no command is installed.
    """
    folders = stable if stable is not None else tuple(Path(name).expanduser() for name in STABLE)
    here = Path(os.path.abspath(started_as))  # noqa: PTH100 - resolve() would follow the link
    if here.name != NAME:
        here = interpreter.parent / NAME
    if not os.access(here, os.X_OK):
        raise ServiceFailed(
            f"no installed command {here}, and a service needs one; install rvc-batch with `uv tool install` or `pipx`"
        )
    if here.parent in folders:
        return here, []
    for folder in folders:
        link = folder / NAME
        if os.access(link, os.X_OK) and link.resolve() == here.resolve():
            return link, []
    return here, [
        f"the service starts {here}, which is not in a folder that survives upgrades ({', '.join(map(str, folders))}): "
        f"if it is moved or rebuilt, the service stops; `ln -s {here} {folders[0]}/{NAME}` and install again"
    ]


def this_program() -> tuple[Path, list[str]]:
    """Return `find_program` for the command that runs now."""
    return find_program(Path(sys.argv[0]), Path(sys.executable))

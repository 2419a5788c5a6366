"""Where voices lie besides the home: folders of other programs, recognised by how they are laid out. Names only.

    Applio      ROOT/logs/NAME/            a folder per voice, its index beside it
    RVC WebUI   ROOT/assets/weights/*.pth  (older: ROOT/weights/), indexes in ROOT/assets/indices and ROOT/logs/NAME
    Replay      ROOT/NAME/                 a folder per voice, `model.pth` and `model.index` in it
    else        ROOT                       laid out as `voices/` of a home

Nothing in a root is ever changed. Source: the folders that RVC, Applio and the Replay app make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# below the home folder of the user: where the Replay app keeps its voices, the present place first
REPLAY = (
    Path("Library/Application Support/Replay/com.replay.Replay/models"),
    Path("Library/Application Support/com.replay.Replay/models"),
)


@dataclass(frozen=True)
class Shelf:
    """A folder whose entries are voices. indexes: folders where their indexes may lie apart from them."""

    folder: Path
    indexes: tuple[Path, ...] = ()


def shelf_of(root: Path) -> Shelf:
    """Return where in a root the voices are.

    Raises:
        OSError: the root is not there or cannot be read.
    """
    logs = root / "logs"
    for weights in (root / "assets" / "weights", root / "weights"):
        if weights.is_dir():
            trainings = sorted(f for f in logs.iterdir() if f.is_dir()) if logs.is_dir() else []
            return Shelf(weights, (root / "assets" / "indices", *trainings))
    folder = logs if logs.is_dir() else root
    next(folder.iterdir(), None)
    return Shelf(folder)


def replay_folders(user_home: Path) -> list[Path]:
    """Return the folders of voices that the Replay app has made for a user."""
    return [user_home / place for place in REPLAY if (user_home / place).is_dir()]


def distinct(roots: Sequence[Path], *, home: Path) -> list[Path]:
    """Return roots without those named twice and those that are the home's own folder of voices or lie in it."""
    found: dict[Path, Path] = {}
    for root in roots:
        place = root.resolve()
        if not place.is_relative_to(home.resolve()):
            found.setdefault(place, root)
    return list(found.values())


def fault_of(root: Path) -> str | None:
    """Say in a sentence why a root cannot be looked into, None if it can."""
    try:
        shelf_of(root)
    except OSError as e:
        return f"the voice root {root} cannot be read ({e.strerror}); bring it back, or take it out of library.roots"
    return None

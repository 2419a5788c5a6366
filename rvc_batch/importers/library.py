"""The folder of voices: which voices there are, and which files belong to each. Names only, nothing is opened.

A voice is `NAME.pth`, or a folder NAME with a `.pth` anywhere inside. Names are in Unicode form NFC, because macOS
stores some names decomposed. Hidden files (`._NAME.pth` of network shares) are no voices.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.errors import ModelNotRvc, VoiceUnknown
from rvc_batch.importers.index import is_trained_name, match_index

MAX_DEPTH = 4  # folders below a voice's own
_TRAINING_FILE = re.compile(r"^[GD]_\d+\.pth$")


@dataclass(frozen=True)
class VoiceEntry:
    """A place in the library that has the name of a voice: a `.pth` file, or a folder that holds one."""

    name: str
    place: Path

    @classmethod
    def of(cls, place: Path) -> VoiceEntry:
        """Return the entry of a file, named after its stem, or of a folder, named after itself."""
        return cls(_nfc(place.name if place.is_dir() else place.stem), place)

    def weights(self) -> Path:
        """Return the `.pth` of the voice.

        Raises:
            ModelNotRvc: the folder holds several and none has a telling name.
        """
        if self.place.is_file():
            return self.place
        found = [f for f in _files(self.place) if f.suffix.lower() == ".pth"]
        exported = [f for f in found if not _TRAINING_FILE.match(f.name)] or found
        telling = [f for f in exported if _nfc(f.stem) in (self.name, "model")]
        if len(exported) == 1 or len(telling) == 1:
            return exported[0] if len(exported) == 1 else telling[0]
        names = ", ".join(str(f.relative_to(self.place)) for f in exported[:6])
        raise ModelNotRvc(
            f"voice folder {self.place} holds {len(exported)} .pth files ({names}); keep one, or name it "
            f"{self.name}.pth"
        )


@dataclass(frozen=True)
class IndexesBeside:
    """The index that belongs to a voice file, and the useless `trained_…` ones beside it."""

    match: Path | None
    trained: tuple[Path, ...]


def scan(voices: Path) -> list[VoiceEntry]:
    """Return every place that names a voice, sorted by name; two places may claim one name."""
    try:
        places = sorted(p for p in voices.iterdir() if not p.name.startswith("."))
    except FileNotFoundError:
        return []
    entries = []
    for place in places:
        if place.is_dir():
            if holds_voice(place):
                entries.append(VoiceEntry.of(place))
        elif place.suffix.lower() == ".pth":
            entries.append(VoiceEntry.of(place))
    return sorted(entries, key=lambda e: e.name)


def holds_voice(folder: Path) -> bool:
    """Say whether a folder has a `.pth` inside."""
    return any(f.suffix.lower() == ".pth" for f in _files(folder))


def find(voices: Path, name: str) -> VoiceEntry:
    """Return the entry of a voice by its name.

    Raises:
        VoiceUnknown: there is none (lists near names), or there are two.
    """
    entries = scan(voices)
    found = [e for e in entries if e.name == _nfc(name)]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(str(e.place) for e in found)
        raise VoiceUnknown(f"{name!r} names {len(found)} voices: {places}; rename one of them")
    names = sorted({e.name for e in entries})
    raise VoiceUnknown(f"there is no voice {name!r} in {voices}; {_suggestion(name, names)}")


def indexes_beside(weights: Path, *, folder: Path | None = None) -> IndexesBeside:
    """Find the index of a voice file.

    Args:
        folder: the voice's own folder, searched with its subfolders; None searches beside the file only.
    """
    files = _files(folder) if folder is not None else _visible(weights.parent)
    indexes = [f for f in files if f.suffix.lower() == ".index"]
    neighbours = [f.stem for f in _visible(weights.parent) if f.suffix.lower() == ".pth" and f != weights]
    own = folder is not None
    names = [weights.stem] if folder is None else [weights.stem, folder.name]
    return IndexesBeside(
        match=match_index(names, indexes, neighbours=[] if own else neighbours, own_folder=own),
        trained=tuple(f for f in indexes if is_trained_name(f)),
    )


def _suggestion(name: str, names: list[str]) -> str:
    if not names:
        return "the folder holds no voices: copy a .pth there or run `rvc-batch import FILE`"
    folded = {n.casefold(): n for n in names}
    near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return f"near matches: {', '.join(near)}"
    return f"there are {', '.join(names[:10])}" + (", …" if len(names) > 10 else "")


def _visible(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """Return the visible files of a folder and its subfolders, to a bounded depth, sorted."""
    found = []
    for here, folders, names in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and depth < MAX_DEPTH)
        found += [Path(here) / n for n in names if not n.startswith(".")]
    return sorted(found)


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)

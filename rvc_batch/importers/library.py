"""The library of voices: which there are, in the home and in other roots, and which files belong to each. Names only.

A voice is `NAME.pth`, a folder NAME with a `.pth` anywhere inside, or `NAME.zip` with one inside; in the home also
`NAME.safetensors`, a canonical checkpoint. Names are in Unicode form NFC, because macOS stores some names decomposed.
Hidden files (`._NAME.pth` of network shares) are no voices. Where two roots have a voice of one name, the home comes
first, then the roots in their order.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rvc_batch.errors import ModelNotRvc, SettingsInvalid, VoiceUnknown
from rvc_batch.importers import archive
from rvc_batch.importers.index import is_trained_name, matching_indexes, names_voice
from rvc_batch.importers.roots import Shelf, distinct, shelf_of
from rvc_batch.importers.sources import CANONICAL

MAX_DEPTH = 4  # folders below a voice's own
MAX_NAME_BYTES = 200  # leaves room for suffixes, which file systems count within 255
_TRAINING_FILE = re.compile(r"^[GD]_\d+\.pth$")


@dataclass(frozen=True)
class VoiceEntry:
    """A place that has the name of a voice: a file, or a folder that holds one.

    root: the configured root it lies in; None in the home. export: the file, where one folder of a root holds several
    voices. indexes: folders apart from it where its index may lie.
    """

    name: str
    place: Path
    root: Path | None = None
    export: Path | None = None
    indexes: tuple[Path, ...] = ()

    @classmethod
    def of(cls, place: Path) -> VoiceEntry:
        """Return the entry of a file, named after its stem, or of a folder, named after itself."""
        return cls(nfc(place.name if place.is_dir() else place.stem), place)

    @property
    def is_packed(self) -> bool:
        """Whether it is a zip file, which must be unpacked first."""
        return self.place.suffix.lower() == archive.SUFFIX and self.place.is_file()

    @property
    def folder(self) -> Path | None:
        """The folder that belongs to this voice alone, None if it has none."""
        return self.place if self.export is None and self.place.is_dir() else None

    def unpacked_at(self, folder: Path) -> VoiceEntry:
        """Return the entry of the same voice in the folder that its zip file was unpacked into."""
        return replace(self, place=folder)

    def weights(self) -> Path:
        """Return the file of the voice.

        Raises:
            ModelNotRvc: the folder holds several and none has a telling name.
        """
        if self.export is not None or not self.place.is_dir():
            return self.export or self.place
        exports = _exports(self.place)
        telling = [f for f in exports if nfc(f.stem) in (self.name, "model")]
        if len(exports) == 1 or len(telling) == 1:
            return exports[0] if len(exports) == 1 else telling[0]
        names = ", ".join(str(f.relative_to(self.place)) for f in exports[:6])
        raise ModelNotRvc(
            f"voice folder {self.place} holds {len(exports)} .pth files ({names}); keep one, or name it {self.name}.pth"
        )


@dataclass(frozen=True)
class VoiceIndexes:
    """What indexes there are for a voice.

    match: the one that belongs to it. rivals: others that match as well as that one. trained: the useless `trained_…`
    ones. unclear: indexes in the voice's own folder, several, of which none names it.
    """

    match: Path | None
    rivals: tuple[Path, ...] = ()
    trained: tuple[Path, ...] = ()
    unclear: tuple[Path, ...] = ()


def scan(voices: Path, roots: Sequence[Path] = ()) -> list[VoiceEntry]:
    """Return every place that names a voice, sorted by name; of one name the home's first, then in the roots' order.

    A root that cannot be read has no voices (`roots.fault_of` says why).
    """
    entries = _home_entries(voices)
    for root in distinct(roots, home=voices):
        try:
            entries += _root_entries(root, shelf_of(root))
        except OSError:
            continue
    return sorted(entries, key=lambda e: e.name)


def in_use(claims: Sequence[VoiceEntry]) -> list[VoiceEntry]:
    """Return which of several entries of one name counts: that of the first root. Two of one root stay two."""
    return [entry for entry in claims if entry.root == claims[0].root]


def holds_voice(folder: Path) -> bool:
    """Say whether a folder has a `.pth` inside."""
    return any(f.suffix.lower() == ".pth" for f in _files(folder))


def find(voices: Path, name: str, roots: Sequence[Path] = ()) -> VoiceEntry:
    """Return the entry of a voice by its name.

    Raises:
        VoiceUnknown: there is none (lists near names), or there are two in one root.
    """
    entries = scan(voices, roots)
    claims = [e for e in entries if e.name == nfc(name)]
    found = in_use(claims) if claims else []
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(str(e.place) for e in found)
        raise VoiceUnknown(f"{name!r} names {len(found)} voices: {places}; rename one of them")
    names = sorted({e.name for e in entries})
    raise VoiceUnknown(f"there is no voice {name!r} in {voices}; {_suggestion(name, names)}")


def indexes_of(entry: VoiceEntry, weights: Path) -> VoiceIndexes:
    """Find the indexes of a voice: in its own folder, else beside its file, else where its root keeps them."""
    own = entry.folder
    near = _indexes(_files(own) if own is not None else _visible(weights.parent))
    others = [] if own is not None else _other_stems(weights)
    names = [weights.stem] if own is None else [weights.stem, own.name, entry.name]  # a zip file's folder has no name
    if entry.export is not None:
        names.append(entry.place.name)
    found = matching_indexes(names, near, neighbours=others, own_folder=own is not None)
    trained = [f for f in near if is_trained_name(f) and (own is not None or names_voice(names, f))]
    usable = [f for f in near if not is_trained_name(f)]
    unclear = usable if own is not None and len(usable) > 1 and not found else []
    if not found and entry.indexes:
        found, far_trained = _far_indexes(entry, weights, others)
        trained += far_trained
    return VoiceIndexes(found[0] if found else None, tuple(found[1:]), tuple(trained), tuple(unclear))


def checked_name(name: str) -> str:
    """Return a name for a voice of the home in Unicode form NFC.

    Raises:
        SettingsInvalid: it would be hidden, leave the folder, drive a terminal or not fit into a file name.
    """
    name = nfc(name)
    is_plain = name.isprintable() and not set(name) & set("/\\") and name == name.strip()
    if not is_plain or not name or name.startswith(".") or len(name.encode()) > MAX_NAME_BYTES:
        raise SettingsInvalid(
            f"{name!r} cannot be the name of a voice; expected 1 to {MAX_NAME_BYTES} bytes of printable text without "
            "slashes that does not begin with a dot; choose one with `rvc-batch voices add FILE --name NAME`"
        )
    return name


def nfc(name: str) -> str:
    """Return a name in Unicode form NFC."""
    return unicodedata.normalize("NFC", name)


def _home_entries(voices: Path) -> list[VoiceEntry]:
    try:
        places = _places(voices)
    except FileNotFoundError:
        return []
    return [VoiceEntry.of(place) for place in places if _is_voice(place) or _is_canonical(place)]


def _root_entries(root: Path, shelf: Shelf) -> list[VoiceEntry]:
    entries = []
    for place in _places(shelf.folder):
        if not _is_voice(place) or _TRAINING_FILE.match(place.name):
            continue
        entry = replace(VoiceEntry.of(place), root=root, indexes=shelf.indexes)
        exports = _exports(place) if place.is_dir() else []
        if len(exports) > 1 and not any(f.stem.lower() == "model" for f in exports):
            entries += [replace(entry, name=nfc(f.stem), export=f) for f in exports]
        elif not exports or not _TRAINING_FILE.match(exports[0].name):
            entries.append(entry)
    return entries


def _places(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _is_voice(place: Path) -> bool:
    if place.is_dir():
        return holds_voice(place)
    suffix = place.suffix.lower()
    return suffix == ".pth" or (suffix == archive.SUFFIX and archive.holds_voice(place))


def _is_canonical(place: Path) -> bool:
    return place.suffix.lower() == CANONICAL and place.is_file()


def _exports(folder: Path) -> list[Path]:
    """Return the voices below a folder; its training files only where it has nothing else."""
    found = [f for f in _files(folder) if f.suffix.lower() == ".pth"]
    return [f for f in found if not _TRAINING_FILE.match(f.name)] or found


def _far_indexes(entry: VoiceEntry, weights: Path, others: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Look for an index where the root keeps them; one without a name belongs to the training whose folder it is in."""
    names = [weights.stem]
    folders = [folder for folder in entry.indexes if folder.is_dir()]
    far = [f for folder in folders for f in _indexes(_visible(folder))]
    found = matching_indexes(names, far, neighbours=others, own_folder=False)
    for folder in folders:
        if not found and names_voice(names, folder / f"{folder.name}.index"):
            found = matching_indexes([*names, folder.name], _indexes(_visible(folder)), neighbours=[], own_folder=True)
    return found, [f for f in far if is_trained_name(f) and names_voice(names, f)]


def _indexes(files: Sequence[Path]) -> list[Path]:
    return [f for f in files if f.suffix.lower() == ".index"]


def _other_stems(weights: Path) -> list[str]:
    return [f.stem for f in _visible(weights.parent) if f.suffix.lower() in (".pth", CANONICAL) and f != weights]


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

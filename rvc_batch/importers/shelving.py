"""Rename and remove voices of the home. What lies in another root is never touched, and nothing is ever deleted.

A removed voice goes to `voices/.trash/NAME/`, with its index and its settings. Every step is a rename on one volume;
the voice's own file goes first, so that an interrupted removal leaves no voice without its index.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rvc_batch.errors import FolderGone, HomeInvalid
from rvc_batch.importers import library
from rvc_batch.importers.library import VoiceEntry
from rvc_batch.importers.store import ModelStore

SETTINGS = ".toml"


def remove(store: ModelStore, name: str, trash: Path) -> Path:
    """Move a voice of the home into a new folder of the trash and return that.

    Raises:
        VoiceUnknown: no such voice. HomeInvalid: it lies in another root. FolderGone: it cannot be moved.
    """
    entry = _own(store, name)
    files = _files_of(store, entry)
    folder = next(f for f in _numbered(trash / entry.name) if not f.exists())
    _move([(file, folder / file.name) for file in files])
    return folder


def rename(store: ModelStore, name: str, new: str) -> list[Path]:
    """Give a voice of the home another name and return its files; its index and settings are renamed with it.

    Raises:
        as `remove`; SettingsInvalid: the new name cannot be used. HomeInvalid: it is taken.
    """
    entry, new = _own(store, name), library.checked_name(new)
    for known in library.scan(store.voices):
        if known.name.casefold() == new.casefold() and known.place != entry.place:
            raise HomeInvalid(f"{known.place} is a voice of that name already; choose another, or remove it first")
    moves = [(file, file.with_name(_renamed(file, entry, new))) for file in _files_of(store, entry)]
    if entry.place.is_dir():
        weights = entry.weights()
        inside = [weights, library.indexes_of(entry, weights).match]
        named = [f for f in inside if f is not None and library.nfc(f.stem) == entry.name]
        moves = [(f, f.with_name(new + f.suffix)) for f in named] + moves
    _move(moves)
    return [target for _, target in moves if target.parent == store.voices]


def _own(store: ModelStore, name: str) -> VoiceEntry:
    entry = library.find(store.voices, name, store.roots)
    if entry.root is not None:
        raise HomeInvalid(
            f"voice {entry.name!r} lies in {entry.root}, which is not this home's to change; change it there, or take "
            "that folder out of library.roots"
        )
    return entry


def _files_of(store: ModelStore, entry: VoiceEntry) -> list[Path]:
    """Return what belongs to a voice in the folder of voices: its file or folder, its index alone, its settings."""
    files = [entry.place]
    if entry.place.is_file() and not entry.is_packed:
        index = library.indexes_of(entry, entry.place).match
        others = [other for other in library.scan(store.voices) if other.place != entry.place]
        if index is not None and all(_index_of(other) != index for other in others):
            files.append(index)
    settings = store.voices / (entry.name + SETTINGS)
    return [*files, settings] if settings.is_file() else files


def _index_of(entry: VoiceEntry) -> Path | None:
    is_alone = entry.place.is_file() and not entry.is_packed
    return library.indexes_of(entry, entry.place).match if is_alone else None


def _renamed(file: Path, entry: VoiceEntry, new: str) -> str:
    return new if file == entry.place and file.is_dir() else new + file.suffix


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for number in itertools.count(2):
        yield folder.with_name(f"{folder.name} ({number})")


def _move(moves: Sequence[tuple[Path, Path]]) -> None:
    for source, target in moves:
        if target.exists() and not target.samefile(source):
            raise HomeInvalid(f"{target} is in the way of {source.name}; rename or remove it first")
    for source, target in moves:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        except OSError as e:
            raise FolderGone(f"cannot move {source} to {target}: {e.strerror}; check the folder and its rights") from e

"""Take a model file into a home: recognise it, import it, and copy it to where the home keeps such files.

A voice in a zip file is unpacked on the way.

Files that already lie in the right folder stay there. Copies appear whole, by rename, and nothing that is there is
ever replaced: a different file of the same name is an error.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.engine.checkpoints import NetworkKind, read_header
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import FolderGone, HomeInvalid, ModelMissing, ModelNotRvc
from rvc_batch.importers import archive, library
from rvc_batch.importers.cache import CachedNetwork
from rvc_batch.importers.index import IndexInfo, check_index, inspect_index
from rvc_batch.importers.library import VoiceEntry
from rvc_batch.importers.pitch_packages import PITCH_SOURCES, pitch_method
from rvc_batch.importers.sources import folder_weights, source_files, source_sha256
from rvc_batch.importers.store import HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE, ModelStore

INDEX = "index"


@dataclass(frozen=True)
class Adopted:
    """What became of one file.

    kind: "hubert", "rmvpe", "fcpe", "crepe", "synthesizer" or "index" · placed: where it lies in the home.
    """

    source: Path
    kind: str
    placed: Path
    is_copied: bool
    voice: Voice | None = None
    index_info: IndexInfo | None = None


def adopt(source: Path, store: ModelStore) -> Adopted:
    """Import a model file, Hugging Face folder, voice folder, zip file or index, and make it part of the home.

    Raises:
        ModelMissing: nothing there, or a folder without a model. HomeInvalid: a different file is in its place.
        ModelError: the file cannot be used. FolderGone: the copy cannot be written.
        SettingsInvalid: the file's name cannot be that of a voice.
    """
    source = source.absolute()
    if source.suffix.lower() == ".index":
        return _adopt_index(source, store)
    if source.suffix.lower() == archive.SUFFIX or (source.is_dir() and folder_weights(source) is None):
        return adopt_voice(source, store)
    network = store.cache.obtain(source)
    if network.kind is NetworkKind.SYNTHESIZER:
        return adopt_voice(source, store)
    return _adopt_network(source, network, store)


def adopt_voice(source: Path, store: ModelStore, *, name: str = "") -> Adopted:
    """Import a voice (`.pth`, folder or zip file) with its index and make it part of the home.

    Args:
        name: what it is to be called; empty takes the name of the file or folder.

    Raises:
        as `adopt`; ModelNotRvc: it is another network.
    """
    source = source.absolute()
    entry = VoiceEntry.of(source)
    if source.is_dir() and not library.holds_voice(source):
        raise ModelMissing(f"{source} holds neither a voice (.pth) nor config.json with model weights")
    if source.suffix.lower() == archive.SUFFIX and not source.is_dir():
        return _adopt_packed(source, entry, name, store)
    return _adopt_entry(source, entry, name, store)


def _adopt_network(source: Path, network: CachedNetwork, store: ModelStore) -> Adopted:
    kind = network.kind
    if source.parent == store.models.absolute():
        return Adopted(source, kind, source, is_copied=False)
    method = pitch_method(read_header(network.checkpoint, kind).config)
    if method is not None:
        name = PITCH_SOURCES[method].file
    else:
        name = RMVPE_FILE if kind is NetworkKind.RMVPE else HUBERT_FOLDER if source.is_dir() else HUBERT_FILE
    other = {HUBERT_FILE: HUBERT_FOLDER, HUBERT_FOLDER: HUBERT_FILE}.get(name)
    if other is not None and (store.models / other).exists():
        raise HomeInvalid(f"{store.models / other} is the content network already; remove it before importing {source}")
    return Adopted(source, kind, store.models / name, is_copied=_place([(source, store.models / name)]))


def _adopt_packed(source: Path, entry: VoiceEntry, name: str, store: ModelStore) -> Adopted:
    if not source.is_file():
        raise ModelMissing(f"{source} is not there, or is not a model file")
    try:
        store.voices.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store.voices, prefix=".import-") as scratch:
            archive.extract(source, Path(scratch))
            return _adopt_entry(source, entry.unpacked_at(Path(scratch)), name, store)
    except OSError as e:
        raise FolderGone(f"cannot unpack {source} into {store.voices}: {e.strerror}; check the folder") from e


def _adopt_entry(source: Path, entry: VoiceEntry, name: str, store: ModelStore) -> Adopted:
    weights = entry.weights()
    index = library.indexes_of(entry, weights).match
    name = library.checked_name(name or entry.name)
    network = store.cache.obtain(weights, NetworkKind.SYNTHESIZER)
    voice = Voice.open(name, network.checkpoint, index)
    if index is not None:
        check_index(index, voice.config.feature_dim, name)
    if store.voices.absolute() in source.parents and name == entry.name:
        placed = weights if source.is_dir() else source
        return Adopted(source, network.kind, placed, is_copied=False, voice=voice)
    target = store.voices / f"{name}{weights.suffix.lower()}"
    for known in library.scan(store.voices):
        if known.name == name and known.place != target:
            raise HomeInvalid(f"the library has a voice {name!r} already ({known.place}); rename one of them")
    parts = [(weights, target)]
    if index is not None:  # first, so that the voice never appears without; its name makes it belong to the voice
        parts.insert(0, (index, target.with_suffix(".index")))
    is_copied = _place(parts)
    return Adopted(source, network.kind, target, is_copied=is_copied, voice=store.voice(name))


def _adopt_index(source: Path, store: ModelStore) -> Adopted:
    info = inspect_index(source)
    if info.is_trained_only:
        raise ModelNotRvc(f"{source} is a 'trained' index without vectors; use the one named 'added_…'")
    if store.voices.absolute() in source.parents:
        return Adopted(source, INDEX, source, is_copied=False, index_info=info)
    target = store.voices / source.name
    return Adopted(source, INDEX, target, is_copied=_place([(source, target)]), index_info=info)


def _place(parts: list[tuple[Path, Path]]) -> bool:
    """Copy each source to its target unless the same is there; return whether anything was copied.

    All targets are checked before the first copy.
    """
    needed = []
    for source, target in parts:
        if not target.exists():
            needed.append((source, target))
        elif source_sha256(source) != source_sha256(target):
            raise HomeInvalid(f"{target} is already there and is a different file; rename or remove one of them")
    for source, target in needed:
        _copy(source, target)
    return bool(needed)


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import-") as scratch:
            copy = Path(scratch) / target.name
            if source.is_dir():
                copy.mkdir()
                for file in source_files(source):
                    _copy_bytes(file, copy / file.name)
            else:
                _copy_bytes(source, copy)
            copy.rename(target)
    except OSError as e:
        raise FolderGone(f"cannot copy {source} to {target}: {e.strerror}; check the folder and its space") from e


def _copy_bytes(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 2**20)
        writer.flush()
        os.fsync(writer.fileno())

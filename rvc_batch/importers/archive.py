"""Voices in zip files: a `.pth` and perhaps its `.index`, as voices are passed around.

They are unpacked into a cache at first use. Nothing of an archive chooses where it is written: members are taken by
their bare names, and an archive with an absolute path, a `..`, a link or sizes beyond any voice is refused as a whole
before a byte of it is written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from rvc_batch.errors import DiskFull, FolderGone, ModelCorrupt, ModelMissing, ModelNotRvc, ModelUnsafe
from rvc_batch.importers.pickled_data import shown
from rvc_batch.importers.sources import fingerprint
from rvc_batch.importers.torch_file import MAX_FILE_BYTES

SUFFIX = ".zip"
MAX_MEMBERS = 1000
MAX_DIRECTORY_BYTES = 2**20  # of the list of members; read whole
MAX_UNPACKED_BYTES = MAX_FILE_BYTES + 2**32  # a voice file and an index, each of the greatest size
BLOCK_BYTES = 2**20
ABANDONED_AFTER_S = 24 * 3600.0
UNPACKED = "unpacked"
_WANTED = (".pth", ".index")
_END_OF_DIRECTORY = b"PK\x05\x06"
_DAMAGED = (zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, EOFError, OverflowError, struct.error)


def holds_voice(path: Path) -> bool:
    """Say whether the list of members of a zip file names a `.pth`; one that cannot be read does not."""
    try:
        (found,) = fingerprint(path)
        return _holds_voice(path, tuple(found))
    except ModelMissing:
        return False


@lru_cache(maxsize=1024)
def _holds_voice(path: Path, _fingerprint: tuple[int, ...]) -> bool:
    try:
        with path.open("rb") as file:
            return any(_is_wanted(member, ".pth") for member in _open(path, file).infolist())
    except (ModelCorrupt, ModelNotRvc, OSError):
        return False


def unpacked(path: Path, cache: Path) -> Path | None:
    """Return the folder that the present content of a zip file was unpacked into, None if it was not yet."""
    folder = _folder(path, cache)
    return folder if folder.is_dir() else None


def unpack(path: Path, cache: Path) -> Path:
    """Unpack the voice files of a zip file into a folder of the cache and return it; once per content.

    Raises:
        ModelUnsafe: a path or link that leads elsewhere. ModelNotRvc: no voice in it, or larger than any.
        ModelCorrupt: damaged or encrypted. DiskFull, FolderGone: it cannot be written.
    """
    folder = _folder(path, cache)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
                unfinished = Path(scratch) / folder.name
                unfinished.mkdir()
                extract(path, unfinished)
                _put(unfinished, folder)
            _sweep(folder)
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise DiskFull(f"no space left for {folder.parent} while unpacking {path.name}; free some") from e
            raise FolderGone(f"cannot unpack {path} into {folder.parent}: {e.strerror}; check both") from e
    return folder


def extract(path: Path, folder: Path) -> None:
    """Write the voice files of a zip file into a folder, under their bare names.

    Raises:
        as `unpack`; OSError: the folder cannot be written.
    """
    with path.open("rb") as file:
        archive = _open(path, file)
        _refuse_unsafe(path, archive)
        members = [m for m in archive.infolist() if _is_wanted(m, *_WANTED)]
        if not any(_is_wanted(m, ".pth") for m in members):
            raise ModelNotRvc(f"{path} holds no voice: there is no .pth in it")
        names = [_bare(m).casefold() for m in members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ModelNotRvc(f"{path} holds {shown(twice[0])} more than once; unpack it and keep the right one")
        for member in members:
            _write(path, archive, member, folder / _bare(member))


def _open(path: Path, file: IO[bytes]) -> zipfile.ZipFile:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 65_557))  # the end record, and the longest comment after it
    tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or len(tail) < at + 22:
        raise ModelCorrupt(f"{path} ({size} bytes) is not a whole zip file; copy or download it again")
    count, directory = struct.unpack("<HI", tail[at + 10 : at + 16])
    if count > MAX_MEMBERS or directory > MAX_DIRECTORY_BYTES:
        raise ModelNotRvc(f"{path} holds {count} files or more; a voice has a few: unpack it and take the voice")
    try:
        return zipfile.ZipFile(file)
    except _DAMAGED as e:
        raise ModelCorrupt(f"{path} ({size} bytes) is damaged or cut short ({shown(str(e))}); download it again") from e


def _refuse_unsafe(path: Path, archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        name = member.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
            raise ModelUnsafe(f"{path} names a path outside of its folder, {shown(member.filename)}; do not use it")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ModelUnsafe(f"{path} holds {shown(member.filename)}, which is a link or device; do not use it")
    total = sum(member.file_size for member in archive.infolist() if _is_wanted(member, *_WANTED))
    if total > MAX_UNPACKED_BYTES:
        raise ModelNotRvc(f"{path} unpacks to {total} bytes, more than any voice ({MAX_UNPACKED_BYTES}); it is not one")


def _write(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one member; what zipfile reads never exceeds the size that was checked."""
    if member.flag_bits & 0x1:
        raise ModelCorrupt(f"{path}: {shown(member.filename)} is encrypted; unpack it with its password first")
    try:
        with archive.open(member) as reader, target.open("xb") as writer:
            while block := reader.read(BLOCK_BYTES):
                writer.write(block)
    except (*_DAMAGED, zlib.error) as e:
        raise ModelCorrupt(f"{path}: {shown(member.filename)} is damaged ({shown(str(e))}); download it again") from e


def _is_wanted(member: zipfile.ZipInfo, *suffixes: str) -> bool:
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not member.is_dir() and not is_hidden and _bare(member).lower().endswith(suffixes)


def _bare(member: zipfile.ZipInfo) -> str:
    return PurePosixPath(member.filename.replace("\\", "/")).name


def _folder(path: Path, cache: Path) -> Path:
    """Return where this content of this file is unpacked: another size, time or inode is another folder."""
    place = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    content = hashlib.sha256(json.dumps(fingerprint(path)).encode()).hexdigest()
    return cache / UNPACKED / place[:32] / content[:32]


def _put(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:  # another process was faster
        if not folder.is_dir():
            raise


def _sweep(folder: Path) -> None:
    """Remove what an earlier content of the same file was unpacked to, and what was left unfinished a day ago."""
    for other in folder.parent.iterdir():
        with contextlib.suppress(OSError):  # another process was faster
            is_abandoned = time.time() - other.stat().st_mtime > ABANDONED_AFTER_S
            if other != folder and (is_abandoned or not other.name.startswith(".")):
                shutil.rmtree(other)

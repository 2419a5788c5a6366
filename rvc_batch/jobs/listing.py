"""One look at the whole inbox: candidates with what `lstat` says, and what is left alone and why.

Names stay bytes, so undecodable ones are files like any other. Nothing is opened and no link is followed; a FIFO or
device cannot block it. Folders deeper than the limit and other volumes mounted inside are noted, not entered.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from rvc_batch.jobs.arrival import (
    BUSY_SIBLINGS,
    SIDECAR_SUFFIX,
    Look,
    why_file_is_ignored,
    why_folder_is_ignored,
)


@dataclass(frozen=True)
class Passed:
    """A file or folder that is left alone, and why."""

    rel: bytes
    size: int
    reason: str
    is_unreadable: bool = False


@dataclass
class Listing:
    """What one pass over the inbox found, by path below it."""

    candidates: dict[bytes, Look] = field(default_factory=dict)
    passed: list[Passed] = field(default_factory=list)


def list_inbox(inbox: Path, *, depth: int) -> Listing:
    """Look at everything below the inbox, `depth` folders deep, in the order of names.

    Raises:
        OSError: the inbox itself is missing or cannot be read.
    """
    listing = Listing()
    root = os.fsencode(inbox)
    device = os.stat(root).st_dev  # noqa: PTH116 - bytes
    pending = [(b"", 0)]
    while pending:
        folder, level = pending.pop()
        try:
            entries = {e.name: e for e in os.scandir(_joined(root, folder))}
        except OSError as e:
            if not folder:
                raise
            listing.passed.append(Passed(folder, 0, f"folder cannot be read ({e.strerror})", is_unreadable=True))
            continue
        below = _list_folder(entries, folder, level, listing, device=device, depth=depth)
        pending += [(f, level + 1) for f in reversed(below)]
    return listing


def _list_folder(
    entries: dict[bytes, os.DirEntry[bytes]], folder: bytes, level: int, listing: Listing, *, device: int, depth: int
) -> list[bytes]:
    """Sort the entries of one folder into candidates and passed ones; return the folders to enter."""
    below = []
    for name in sorted(entries):
        rel = _joined(folder, name)
        try:
            found = entries[name].stat(follow_symlinks=False)
        except FileNotFoundError:  # gone since the folder was read
            continue
        except OSError as e:
            listing.passed.append(Passed(rel, 0, f"cannot be looked at ({e.strerror})", is_unreadable=True))
            continue
        reason = _why_passed(name, found, entries, device=device, is_deepest=level == depth)
        if reason is not None:
            if reason:
                listing.passed.append(Passed(rel, found.st_size, reason))
        elif stat.S_ISDIR(found.st_mode):
            below.append(rel)
        else:
            listing.candidates[rel] = _look(name, found, entries)
    return below


def _joined(folder: bytes, name: bytes) -> bytes:
    return b"/".join(part for part in (folder, name) if part)


def _why_passed(
    name: bytes, found: os.stat_result, entries: dict[bytes, os.DirEntry[bytes]], *, device: int, is_deepest: bool
) -> str | None:
    """Say why an entry is left alone; an empty reason is not worth showing; None means that it is taken."""
    if name.startswith(b"."):
        return ""
    if stat.S_ISLNK(found.st_mode):
        return "symbolic link"
    if stat.S_ISDIR(found.st_mode):
        if found.st_dev != device:
            return "folder on another volume"
        return why_folder_is_ignored(name) or ("folder too deep" if is_deepest else None)
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    reason = why_file_is_ignored(name)
    if reason:
        return reason
    if name.lower().endswith(SIDECAR_SUFFIX):
        audio = name[: -len(SIDECAR_SUFFIX)]
        return "" if audio in entries else f"settings file, but {audio.decode(errors='replace')} is not beside it"
    return None


def _look(name: bytes, found: os.stat_result, entries: dict[bytes, os.DirEntry[bytes]]) -> Look:
    return Look(
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        device=found.st_dev,
        inode=found.st_ino,
        birthtime=getattr(found, "st_birthtime", None),
        flags=getattr(found, "st_flags", 0),
        sibling=next((name + s for s in BUSY_SIBLINGS if name + s in entries), None),
        sidecar=_sidecar_mark(entries.get(name + SIDECAR_SUFFIX)),
    )


def _sidecar_mark(entry: os.DirEntry[bytes] | None) -> tuple[int, int, int] | None:
    try:
        found = entry.stat(follow_symlinks=False) if entry else None
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ino) if found else None

"""Content features and f0 that were computed before: on disk, by what they are computed from.

One recording is often rendered more than once: with several voices, with another transposition, after a failure. The
networks that know nothing of the voice need to see it only once. The key of an entry is a hash of the very samples the
network is given and of all else that decides what it returns, so a hit is what would have been computed, to the byte.
As with the tags of a result, the versions of libraries are not part of that.

Losing an entry costs time, nothing else: whatever goes wrong here is a miss and a line in the log. Entries are checked
when they are read. The folder is bounded; what was not used for longest goes first, but never for the sake of the
conversion that is under way, which would push out its own beginning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rvc_batch.engine.types import F32, F64
from rvc_batch.version import __version__

__all__ = ["FeatureCache", "feature_key"]

logger = logging.getLogger(__name__)

SUFFIX, UNFINISHED = ".npz", ".unfinished"
FREE_BYTES = 2_000_000_000  # on the volume: with less nothing is kept, and what was kept goes


class FeatureCache:
    """A bounded folder of arrays.

    folder: made when it is needed. limit_bytes: of all entries together, 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._since = time.time()

    def begin(self) -> None:
        """Note that a conversion begins: what it keeps or uses from now on is not pushed out by what it keeps later."""
        self._since = time.time()

    def get(self, key: str) -> F32 | None:
        """Return the array of a key, None if it is not there or was damaged."""
        path = self._folder / f"{key}{SUFFIX}"
        try:
            with path.open("rb") as file, np.load(file) as stored:  # a zip archive: reading compares the checksum
                values: F32 = stored["values"]
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            logger.warning("an entry of the feature cache cannot be used and is computed again: %s", e)
            _remove(path)
            return None
        return values

    def keep(self, key: str, values: F32) -> None:
        """Store an array, if there is room for it."""
        partial = self._folder / f"{key}{UNFINISHED}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(values.nbytes):
                return
            with partial.open("wb") as file:
                np.savez(file, values=values)
            partial.replace(self._folder / f"{key}{SUFFIX}")
        except OSError as e:
            logger.warning("the feature cache cannot keep an entry: %s", e)
            _remove(partial)

    def _make_room(self, needed: int) -> bool:
        """Remove what was not used for longest until `needed` bytes fit; say whether they do."""
        is_short = shutil.disk_usage(self._folder).free < FREE_BYTES + needed
        limit = 0 if is_short else self._limit
        entries = sorted(self._entries())
        held = sum(size for _, size, _ in entries)
        for used, size, path in entries:
            if held + needed <= limit or (used >= self._since and not is_short):
                break
            _remove(path)
            held -= size
        return held + needed <= limit

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each file was last used, its size and itself; what a killed process left is a file like others."""
        for found in os.scandir(self._folder):
            try:
                stat = found.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process was faster
                continue
            yield stat.st_mtime, stat.st_size, Path(found.path)


def feature_key(parts: tuple[object, ...], samples: Iterable[F32 | F64]) -> str:
    """Return the key of what is computed from audio.

    parts: all else it depends on, each with a text of its own. samples: the audio in blocks of one type; where it is
    cut into blocks makes no difference.
    """
    digest = hashlib.sha256("\0".join([__version__, *map(str, parts)]).encode())
    digest.update(b"\0")
    for block in samples:
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        logger.warning("%s stays in the feature cache: %s", path.name, e.strerror)

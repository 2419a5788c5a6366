"""The model cache: canonical checkpoints keyed by the SHA-256 of their source.

A small record per source remembers size, modification time and inode, so that an unchanged file is neither hashed nor
imported again and a replaced one is noticed. Several processes may use one cache: every file appears by atomic
rename, and two imports of one source produce the same content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from rvc_batch.engine.checkpoints import NetworkKind, read_header, read_tensors
from rvc_batch.errors import DiskFull, FolderGone, ModelCorrupt, ModelError, ModelNotRvc
from rvc_batch.importers.isolation import import_isolated
from rvc_batch.importers.sources import Fingerprint, fingerprint, source_sha256

UNFINISHED = ".part"
ABANDONED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class CachedNetwork:
    """A canonical checkpoint of the cache."""

    kind: NetworkKind
    checkpoint: Path
    sha256: str


@dataclass(frozen=True)
class _Record:
    """What is known of a source: its fingerprint, and how its import ended."""

    fingerprint: Fingerprint
    kind: str = ""
    sha256: str = ""
    error: str = ""


class ModelCache:
    """Finds and fills canonical checkpoints in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, source: Path, expected: NetworkKind | None = None) -> CachedNetwork:
        """Return the canonical checkpoint of a source, importing it if it is new or was replaced.

        Raises:
            ModelMissing: no such file. ModelNotRvc: another kind than expected. RvcBatchError: see `import_isolated`.
        """
        found = self.find(source) or self._import(source)
        if expected is not None and found.kind is not expected:
            raise ModelNotRvc(f"{source} holds a {found.kind} network, expected {expected}; put the right file there")
        return found

    def find(self, source: Path) -> CachedNetwork | None:
        """Return the canonical checkpoint of an unchanged source; None if it must be imported (again).

        Raises:
            ModelMissing: no such file.
        """
        record = self._current_record(source)
        return self._checkpoint(NetworkKind(record.kind), record.sha256) if record and record.sha256 else None

    def known_error(self, source: Path) -> str | None:
        """Return why the last import of the unchanged source failed, None if it did not.

        Raises:
            ModelMissing: no such file.
        """
        record = self._current_record(source)
        return record.error or None if record else None

    def verify(self, source: Path, expected: NetworkKind) -> bool:
        """Import a source anew, whatever is known of it, and compare with its canonical checkpoint.

        Returns:
            whether the cache held another content and was put right.

        Raises:
            as `obtain`.
        """
        before, sha256 = fingerprint(source), source_sha256(source)
        known = self._any_checkpoint(sha256)
        try:
            if known is None:
                found, is_damaged = self._convert(source, sha256, before), False
            else:
                found, is_damaged = self._compare(source, sha256, before, known)
        except ModelError as e:
            self._remember(source, _Record(before, error=str(e)))
            raise
        self._remember(source, _Record(before, found.kind.value, sha256))
        if found.kind is not expected:
            raise ModelNotRvc(f"{source} holds a {found.kind} network, expected {expected}; put the right file there")
        return is_damaged

    def _compare(
        self, source: Path, sha256: str, before: Fingerprint, known: CachedNetwork
    ) -> tuple[CachedNetwork, bool]:
        """Import again beside a known checkpoint, and replace that if its tensors differ."""
        with tempfile.TemporaryDirectory(dir=self._folder, suffix=UNFINISHED) as scratch:
            fresh = ModelCache(Path(scratch))._convert(source, sha256, before)
            is_same = fresh.kind is known.kind and _same_tensors(fresh.checkpoint, known.checkpoint)
            if not is_same:
                with self._writing():
                    fresh.checkpoint.replace(self._path(fresh.kind, sha256))
        return CachedNetwork(fresh.kind, self._path(fresh.kind, sha256), sha256), not is_same

    def _import(self, source: Path) -> CachedNetwork:
        before = fingerprint(source)
        sha256 = source_sha256(source)
        try:
            found = self._any_checkpoint(sha256) or self._convert(source, sha256, before)
        except ModelError as e:
            self._remember(source, _Record(before, error=str(e)))
            raise
        self._remember(source, _Record(before, found.kind.value, sha256))
        return found

    def _convert(self, source: Path, sha256: str, before: Fingerprint) -> CachedNetwork:
        with self._writing():
            self._sweep()
            unfinished = self._new_file()
        try:
            kind = import_isolated(source, unfinished, sha256=sha256)
            read_header(unfinished, kind)
            if fingerprint(source) != before:
                raise ModelCorrupt(f"{source} changed while it was imported; try again when it is complete")
            target = self._path(kind, sha256)
            with self._writing():
                unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        return CachedNetwork(kind, target, sha256)

    def _any_checkpoint(self, sha256: str) -> CachedNetwork | None:
        return next((found for kind in NetworkKind if (found := self._checkpoint(kind, sha256))), None)

    def _checkpoint(self, kind: NetworkKind, sha256: str) -> CachedNetwork | None:
        path = self._path(kind, sha256)
        try:
            read_header(path, kind)
        except ModelError:  # absent, damaged or of an older schema: imported again from the source
            return None
        return CachedNetwork(kind, path, sha256)

    def _path(self, kind: NetworkKind, sha256: str) -> Path:
        return self._folder / f"{kind.value}-{sha256}.safetensors"

    def _record_path(self, source: Path) -> Path:
        return self._folder / f"source-{hashlib.sha256(os.fsencode(source.absolute())).hexdigest()[:32]}.json"

    def _current_record(self, source: Path) -> _Record | None:
        now = fingerprint(source)
        try:
            values: dict[str, Any] = json.loads(self._record_path(source).read_text(encoding="utf-8"))
            record = _Record(**values)
        except (OSError, ValueError, TypeError):  # none yet, or unreadable: the source is hashed again
            return None
        return record if record.fingerprint == now else None

    def _remember(self, source: Path, record: _Record) -> None:
        with self._writing():
            unfinished = self._new_file()
            try:
                unfinished.write_text(json.dumps(asdict(record)), encoding="utf-8")
                unfinished.replace(self._record_path(source))
            finally:
                unfinished.unlink(missing_ok=True)

    def _new_file(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=UNFINISHED)
        os.close(handle)
        return Path(name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise DiskFull(f"no space left for the model cache {self._folder}; free some") from e
            raise FolderGone(f"cannot write to {self._folder}: {e.strerror}; check the folder and its rights") from e

    def _sweep(self) -> None:
        """Remove what imports that were killed left behind."""
        for path in self._folder.glob(f"*{UNFINISHED}"):
            try:
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


def _same_tensors(one: Path, other: Path) -> bool:
    """Say whether two canonical checkpoints hold the same tensors, bit by bit; one that cannot be read differs."""
    try:
        a, b = read_tensors(one), read_tensors(other)
    except (OSError, SafetensorError):
        return False
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)

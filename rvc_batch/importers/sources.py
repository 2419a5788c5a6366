"""What a model is made of on disk: one file, or config and weights of a Hugging Face folder.

Names, sizes and hashes only; the content is `identify`'s business, in another process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rvc_batch.errors import ModelMissing

CANONICAL = ".safetensors"  # of a canonical checkpoint that serves as a voice
FOLDER_CONFIG = "config.json"
FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that exists is read

Fingerprint = list[list[int]]  # size, mtime_ns and inode of each file; plain lists, as JSON gives them back


def folder_weights(folder: Path) -> Path | None:
    """Return the weight file of a Hugging Face folder, None if it is no such folder."""
    if not (folder / FOLDER_CONFIG).is_file():
        return None
    return next((folder / name for name in FOLDER_WEIGHTS if (folder / name).is_file()), None)


def source_files(source: Path) -> tuple[Path, ...]:
    """Return the files that make up a source.

    Raises:
        ModelMissing: there is no such file or folder.
    """
    if source.is_dir() and (weights := folder_weights(source)) is not None:
        return source / FOLDER_CONFIG, weights
    if not source.is_file():
        raise ModelMissing(f"{source} is not there, or is not a model file")
    return (source,)


def source_sha256(source: Path) -> str:
    """Return the SHA-256 (hex) of a source; of a folder, that of config and weights one after the other.

    Raises:
        ModelMissing: it cannot be read.
    """
    digest = hashlib.sha256()
    for path in source_files(source):
        try:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as e:
            raise ModelMissing(f"{path} cannot be read: {e.strerror}; check the file and its permissions") from e
    return digest.hexdigest()


def fingerprint(source: Path) -> Fingerprint:
    """Return what changes when a source is replaced, without reading it.

    Raises:
        ModelMissing: it is not there.
    """
    try:
        stats = [path.stat() for path in source_files(source)]
    except OSError as e:
        raise ModelMissing(f"{source} cannot be read: {e.strerror}; check the file and its permissions") from e
    return [[s.st_size, s.st_mtime_ns, s.st_ino] for s in stats]

"""Fetch the published content and pitch networks from their hub: pinned, verified, resumable.

Only `rvc-batch models fetch` comes here; nothing else in the program opens a connection. What is fetched is a file at
one revision of a repository, known by size and SHA-256 before the first byte. It appears under its name whole or not at
all; what an interrupted fetch leaves is continued by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from rvc_batch.errors import DiskFull, FetchFailed, FolderGone, HomeInvalid, ModelCorrupt
from rvc_batch.importers.sources import source_sha256
from rvc_batch.importers.store import HUBERT_FILE, RMVPE_FILE

# used by the official container image of RVC (Dockerfile), with both files in it
REPOSITORY, REVISION = "lj1995/VoiceConversionWebUI", "88e42f0cb3662ddc0dd263a4814206ce96d53214"
HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"  # the hub's own name for "use this mirror"

BLOCK = 1 << 18
QUIET_S = 30.0  # a connection that says nothing for so long is given up
ATTEMPTS = 5
OK, PARTIAL = 200, 206


@dataclass(frozen=True)
class Published:
    """A file of the repository. size: bytes · sha256: hex."""

    name: str
    size: int
    sha256: str

    def url(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return where it is, at the pinned revision."""
        hub = environment.get(HUB_VARIABLE, HUB).rstrip("/")
        return f"{hub}/{REPOSITORY}/resolve/{REVISION}/{self.name}"


PUBLISHED = (
    Published(HUBERT_FILE, 189_507_909, "f54b40fd2802423a5643779c4861af1e9ee9c1564dc9d32f54f20b5ffba7db96"),
    Published(RMVPE_FILE, 181_184_272, "6d62215f4306e3ca278246188607209f09af3dc77ed4232efdd069798c4ec193"),
)

Progress = Callable[[int], None]


def fetch(file: Published, folder: Path, url: str, progress: Progress = lambda _: None) -> bool:
    """Put a published file into a folder; return whether anything was fetched.

    url: where it is. progress: called with the bytes that are there, from the first of them on.

    Raises:
        HomeInvalid: another file of that name is there. FetchFailed: no answer, or another fetch is running.
        ModelCorrupt: what came is not the published file. DiskFull, FolderGone: it cannot be written.
    """
    target = folder / file.name
    if target.exists():
        if source_sha256(target) != file.sha256:
            raise HomeInvalid(f"{target} is there and is not the published file; move it away to fetch that one")
        return False
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{file.name}.{file.sha256[:8]}.part"
        with partial.open("ab") as kept:
            _lock(kept, target)
            _check_space(folder, file.size - kept.tell())
            _complete(file, url, kept, partial, progress)
            kept.flush()
            os.fsync(kept.fileno())
            if source_sha256(partial) != file.sha256:
                partial.unlink()
                raise ModelCorrupt(
                    f"{url} gave {file.size} bytes that are not the published {file.name} (SHA-256 differs); "
                    "they were thrown away: try again, or without a mirror"
                )
            partial.rename(target)
    return True


def _complete(file: Published, url: str, kept: IO[bytes], partial: Path, progress: Progress) -> None:
    """Append what is missing, with a new connection whenever one breaks."""
    failed = 0
    while (have := kept.tell()) < file.size:
        progress(have)
        try:
            _append(file, url, kept, progress)
            problem = "the connection ended early"
        except urllib.error.HTTPError as e:
            raise FetchFailed(f"{url} answered {e.code} {e.reason}; {_otherwise(file, partial.parent)}") from e
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as e:
            problem = str(getattr(e, "reason", e)) or type(e).__name__
        failed = 0 if kept.tell() > have else failed + 1
        if failed == ATTEMPTS:
            raise FetchFailed(
                f"{url} cannot be fetched ({problem}); {kept.tell() / 1e6:.1f} of {file.size / 1e6:.1f} MB are kept, "
                f"try again to go on; {_otherwise(file, partial.parent)}"
            )
    if kept.tell() > file.size:
        kept.truncate(0)
        raise FetchFailed(f"{url} gave more than the {file.size} bytes of the published {file.name}; try again")


def _append(file: Published, url: str, kept: IO[bytes], progress: Progress) -> None:
    """Read one answer to its end, starting where the kept part ends if the server agrees."""
    have = kept.tell()
    request = urllib.request.Request(url, headers={"User-Agent": "rvc-batch", "Range": f"bytes={have}-"})
    with urllib.request.urlopen(request, timeout=QUIET_S) as answer:
        is_rest = answer.status == PARTIAL and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not is_rest:
            if answer.status != OK:
                raise FetchFailed(f"{url} answered {answer.status} to a request for bytes {have} and up; try again")
            kept.truncate(0)
            kept.seek(0)
        while block := answer.read(BLOCK):
            kept.write(block)
            progress(kept.tell())
            if kept.tell() > file.size:
                return


def _lock(kept: IO[bytes], target: Path) -> None:
    try:
        fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise FetchFailed(f"{target.name} is being fetched by another process; wait for it") from e
    kept.seek(0, os.SEEK_END)


def _check_space(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise DiskFull(f"{missing / 1e6:.0f} MB are still to be fetched into {folder}, {free / 1e6:.0f} MB are free")


def _otherwise(file: Published, folder: Path) -> str:
    return f"or get {file.name} elsewhere and copy it into {folder}"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise DiskFull(f"no space left in {folder}; free some and fetch again, what came is kept") from e
        raise FolderGone(f"cannot write to {folder}: {e.strerror}; check the folder and its space") from e

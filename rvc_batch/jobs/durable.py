"""File operations that survive a crash: durable writes, exclusive names, moves that never overwrite.

Everything that ends under a user-visible name passes through here, in `jobs.ingest`, `jobs.publish` and `jobs.sources`.
Nothing here knows of jobs. Paths are never followed through a symbolic link at their last component.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from rvc_batch.errors import DiskFull, EnvironmentFault, FolderGone
from rvc_batch.jobs.output_names import candidates

BLOCK_BYTES = 1 << 20
FEW_SYNCS = 4  # what one file needs; not worth a thread, and traceable call by call
SYNC_THREADS = 16  # ext4: 0.5 ms a file, against 1 ms with four and 2 to 9 ms with one
READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never follow a link, never wait for a FIFO
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
FULL = (errno.ENOSPC, errno.EDQUOT)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENXIO)


def environment_fault(error: OSError, folder: Path) -> EnvironmentFault:
    """Name the fault of the machine behind an OSError met while writing below `folder`."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return DiskFull(f"no space left on the volume of {folder} ({reason}); free some space, work resumes by itself")
    if error.errno in GONE:
        return FolderGone(f"cannot write in {folder} ({reason}); make it writable, work resumes by itself")
    return EnvironmentFault(f"cannot write in {folder} ({reason}); work is tried again by itself")


def sync_file(fd: int) -> None:
    """Make a file's content survive power loss. macOS needs F_FULLFSYNC: its fsync stops at the drive's cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(fd, full)
        except OSError as e:
            if e.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)


def sync_path(path: Path) -> None:
    """Make the content of a closed file survive power loss."""
    fd = os.open(path, READ_ONLY)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive power loss."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # some network volumes cannot
            raise
    finally:
        os.close(fd)


def sync_all(*, files: Sequence[Path] = (), folders: Sequence[Path] = ()) -> None:
    """Make the content of closed files and the names in folders survive power loss, all of them when it returns.

    Many are asked for at once: a file system writes what several threads wait for in one transaction of its journal.
    """
    if len(files) + len(folders) <= FEW_SYNCS:
        for file in files:
            sync_path(file)
        for folder in folders:
            sync_folder(folder)
        return
    from concurrent.futures import ThreadPoolExecutor  # here, because `status` reads this file and needs no threads

    with ThreadPoolExecutor(min(SYNC_THREADS, max(1, len(files) + len(folders)))) as pool:
        waiting = [pool.submit(sync_path, file) for file in files]
        waiting += [pool.submit(sync_folder, folder) for folder in folders]
    for done in waiting:
        done.result()


def write_whole(path: Path, data: bytes, *, durable: bool) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part."""
    temp = _temp_beside(path)
    with temp.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            sync_file(file.fileno())
    temp.replace(path)
    if durable:
        sync_folder(path.parent)


def digest(path: Path) -> tuple[str, int]:
    """Return SHA-256 and size of a regular file. Never blocks on a FIFO or follows a link.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    fd = os.open(path, READ_ONLY)
    with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        sha, size = hashlib.sha256(), 0
        while block := file.read(BLOCK_BYTES):
            sha.update(block)
            size += len(block)
    return sha.hexdigest(), size


def make_folders(base: Path, relative: Path) -> Path:
    """Create `base/relative`, but never `base` itself: a missing base is a volume that is not mounted.

    Raises:
        FileNotFoundError: base is missing.
    """
    base.stat()
    folder = base
    for part in relative.parts:
        folder = folder / part
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        sync_folder(folder.parent)
    return folder


def link_exclusively(source: Path, target: Path) -> None:
    """Give a file a second name that must not exist yet. Where links are not supported, move it to the new name.

    Raises:
        FileExistsError: target exists, whatever it is.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as e:
        if e.errno not in NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from e
        source.rename(target)


def place(source: Path, folder: Path, name: str) -> Path:
    """Put a file into a folder under `name`, or `name (2)` … if taken, and return where; the caller removes `source`.

    Placing the same file again finds the name it was given before, so a crash in between changes nothing.
    """
    for candidate in candidates(os.fsencode(name)):
        target = folder / os.fsdecode(candidate)
        try:
            link_or_copy(source, target)
        except FileExistsError:
            if not _is_same(source, target):
                continue
        sync_folder(folder)
        return target
    raise AssertionError("candidates is endless")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second, exclusive name; on another volume the name gets a whole, durable copy.

    Raises:
        FileExistsError: target exists, whatever it is.
    """
    try:
        link_exclusively(source, target)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        _copy_exclusively(source, target)


def share(source: Path, target: Path) -> None:
    """Give a file a second, exclusive name and leave the first; where links are not possible the name gets a copy.

    Raises:
        FileExistsError: target exists, whatever it is.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as e:
        if e.errno not in (*NO_LINKS, errno.EXDEV):
            raise
        _copy_exclusively(source, target)


def _copy_exclusively(source: Path, target: Path) -> None:
    """Give a whole, durable copy of a file a name that must not exist yet."""
    temp = _temp_beside(target)
    try:
        _copy(source, temp)
        link_exclusively(temp, target)
    finally:
        temp.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    fd = os.open(source, READ_ONLY)
    with open(fd, "rb", buffering=0) as reader, target.open("wb") as writer:  # noqa: PTH123 - a descriptor, not a path
        shutil.copyfileobj(reader, writer, BLOCK_BYTES)
        writer.flush()
        sync_file(writer.fileno())


def _temp_beside(path: Path) -> Path:
    """Return a hidden name that is never too long, whatever the length of the final one."""
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:24]}.part")


def _is_same(one: Path, other: Path) -> bool:
    a, b = one.lstat(), other.lstat()
    if a.st_dev == b.st_dev:
        return a.st_ino == b.st_ino
    return stat.S_ISREG(b.st_mode) and a.st_size == b.st_size and digest(one) == digest(other)

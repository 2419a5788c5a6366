"""Power is lost after every single operation of one job's life, and the disk kept what it had to, or more.

    python -m tests.power_loss [--every K]

strace records what one whole life (arrival to processed/) does to the disk, SQLite's own writes included. A model of a
disk replays each prefix and asks what a new start would find, in four forms: of the data since the last fsync of each
file all or nothing, and of the names since the last fsync of each folder all or nothing. From each of these a new life
must bring the file to one whole result. The model proves itself: after the last operation it must equal the real
folder.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from rvc_batch.home import Home
from tests import inline_box, strace
from tests.syscall_faults import assert_whole, prepared

TRACED = ",".join(("openat", "lseek", *strace.CALLS))
LINE = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
AT_FOLDER = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>, ")
State: TypeAlias = dict[str, tuple[int, bytes] | None]  # path below the root → inode and content, None = a folder
NOT_MODELLED = ("-shm", "renders.log")  # mapped memory that SQLite builds anew; the fake engine's diary


@dataclass
class Disk:
    """Files by inode and names by folder: as they are, and as they would be after power loss."""

    root: Path
    data: dict[int, bytes] = field(default_factory=dict)
    names: dict[Path, dict[str, int | None]] = field(default_factory=dict)  # folder → name → inode, None = a folder
    kept_data: dict[int, bytes] = field(default_factory=dict)
    kept_names: dict[Path, dict[str, int | None]] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)  # of descriptors

    @classmethod
    def of(cls, root: Path) -> Disk:
        """Return a folder as it is, all of it durable."""
        disk = cls(root)
        for path in [root, *sorted(root.rglob("*"))]:
            if path.is_dir():
                disk.names[path] = {}
        for path in sorted(root.rglob("*")):
            is_file = path.is_file()
            disk.names[path.parent][path.name] = disk.new(path.read_bytes()) if is_file else None
        disk.kept_data = dict(disk.data)
        disk.kept_names = {folder: dict(names) for folder, names in disk.names.items()}
        return disk

    def new(self, data: bytes = b"") -> int:
        self.data[len(self.data)] = data
        return len(self.data) - 1

    def find(self, path: Path) -> int | None:
        return self.names.get(path.parent, {}).get(path.name)

    def write(self, path: Path, offset: int, data: bytes) -> None:
        inode = self.find(path)
        if inode is not None:
            old = self.data[inode].ljust(offset, b"\0")
            self.data[inode] = old[:offset] + data + old[offset + len(data) :]

    def truncate(self, path: Path, size: int) -> None:
        inode = self.find(path)
        if inode is not None:
            self.data[inode] = self.data[inode][:size].ljust(size, b"\0")

    def sync(self, path: Path) -> None:
        if path in self.names:
            self.kept_names[path] = dict(self.names[path])
        elif (inode := self.find(path)) is not None:
            self.kept_data[inode] = self.data[inode]

    def link(self, old: Path, new: Path) -> None:
        self.names[new.parent][new.name] = self.find(old)

    def remove(self, path: Path) -> None:
        del self.names[path.parent][path.name]

    def after_power_loss(self, *, keeps_data: bool, keeps_names: bool) -> State:
        """Return what a new start would find."""
        names = self.names if keeps_names else self.kept_names
        found: State = {}
        pending = [self.root]
        while pending:
            folder = pending.pop()
            for name, inode in names.get(folder, {}).items():
                path = folder / name
                if inode is None:
                    pending.append(path)
                    found[str(path.relative_to(self.root))] = None
                else:
                    data = self.data[inode] if keeps_data else self.kept_data.get(inode, b"")
                    found[str(path.relative_to(self.root))] = inode, data
        return found


def recorded(home: Home, record: Path) -> list[str]:
    """Live one whole life and return what strace saw of it."""
    log = record.with_suffix(".log")
    options = ["-y", "-xx", "-s", "1000000", "-e", f"trace={TRACED}"]
    if strace.traced(partial(inline_box.live, home), *options, record=record, log=log) != 0:
        raise RuntimeError(log.read_text())
    return record.read_text().splitlines()


def replay(disk: Disk, line: str) -> bool:
    """Apply one line of strace to the model; return whether it changed or secured anything."""
    parsed = LINE.match(line)
    if parsed is None or int(parsed[3]) < 0:
        return False
    call, arguments, result = parsed[1], parsed[2], int(parsed[3])
    paths = _paths(arguments)
    texts = [_decoded(t) for t in TEXT.findall(arguments)]
    descriptor = DESCRIPTOR.match(arguments)
    at = Path(_decoded_path(descriptor[2])) if descriptor else Path()
    if call == "openat":
        return _open(disk, paths[0], arguments, result) if _is_below(disk, paths[0]) else False
    if descriptor and call in ("lseek", "write", "pwrite64", "ftruncate", "fsync", "fdatasync"):
        return _on_descriptor(disk, call, int(descriptor[1]), at, arguments, texts, result)
    if not all(_is_below(disk, path) for path in paths):
        return False
    if call.startswith("mkdir"):
        disk.names[paths[0].parent][paths[0].name] = None
        disk.names[paths[0]], disk.kept_names[paths[0]] = {}, {}
    elif call.startswith("link"):
        disk.link(paths[0], paths[1])
    elif call.startswith("rename"):
        disk.link(paths[0], paths[1])
        disk.remove(paths[0])
    elif call.startswith(("unlink", "rmdir")):
        disk.remove(paths[0])
    return True


def _open(disk: Disk, path: Path, arguments: str, descriptor: int) -> bool:
    disk.offsets[descriptor] = 0
    changed = False
    if "O_CREAT" in arguments and disk.find(path) is None:
        disk.names[path.parent][path.name] = disk.new()
        changed = True
    if "O_TRUNC" in arguments:
        disk.truncate(path, 0)
        changed = True
    if "O_APPEND" in arguments and (inode := disk.find(path)) is not None:
        disk.offsets[descriptor] = len(disk.data[inode])
    return changed


def _on_descriptor(
    disk: Disk, call: str, descriptor: int, at: Path, arguments: str, texts: list[bytes], result: int
) -> bool:
    if not _is_below(disk, at):
        return False
    if call == "lseek":
        disk.offsets[descriptor] = result
        return False
    if call == "write":
        disk.write(at, disk.offsets.get(descriptor, 0), texts[0][:result])
        disk.offsets[descriptor] = disk.offsets.get(descriptor, 0) + result
    elif call == "pwrite64":
        disk.write(at, int(arguments.rsplit(", ", 1)[1]), texts[0][:result])
    elif call == "ftruncate":
        disk.truncate(at, int(arguments.rsplit(", ", 1)[1]))
    else:
        disk.sync(at)
    return True


def _paths(arguments: str) -> list[Path]:
    """Return the paths that a call names, joined with the folder they are relative to."""
    folders = [Path(_decoded_path(f)) for f in AT_FOLDER.findall(arguments)]
    texts = [Path(_decoded(t).decode("utf-8", "surrogateescape")) for t in TEXT.findall(arguments)]
    return [folders[n] / text if n < len(folders) else text for n, text in enumerate(texts)]


def _readable(line: str) -> str:
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda m: repr(_decoded(m[0]))[1:], line)


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _decoded_path(text: str) -> str:
    return _decoded(text).decode("utf-8", "surrogateescape") if text.startswith("\\x") else text


def _is_below(disk: Disk, path: Path) -> bool:
    return path.is_relative_to(disk.root) and not path.name.endswith(NOT_MODELLED)


# --- what a new start makes of it -------------------------------------------------------------------------------------


def states(disk: Disk, lines: list[str]) -> Iterator[tuple[str, State]]:
    """Replay line by line; yield every different state that power loss can leave, with the line it came after."""
    seen: set[str] = set()
    for line in lines:
        if not replay(disk, line):
            continue
        for keeps_data in (False, True):
            for keeps_names in (False, True):
                found = disk.after_power_loss(keeps_data=keeps_data, keeps_names=keeps_names)
                mark = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
                if mark not in seen:
                    seen.add(mark)
                    how = f"data {'kept' if keeps_data else 'lost'}, names {'kept' if keeps_names else 'lost'}"
                    yield f"{_readable(line)[:300]} … {how}", found


def written(found: State, root: Path) -> Home:
    """Make a home of a state."""
    root.mkdir()
    first: dict[int, Path] = {}  # names of one file stay names of one file
    for name, file in sorted(found.items()):
        path = root / name
        if file is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        inode, data = file
        if inode in first:
            path.hardlink_to(first[inode])
        else:
            path.write_bytes(data)
            first[inode] = path
    return Home(root)


def modelled(root: Path) -> dict[str, bytes]:
    """Return the files of a real folder that the model follows."""
    files = (p for p in root.rglob("*") if p.is_file() and not p.name.endswith(NOT_MODELLED))
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def walk(*, every: int) -> tuple[int, int]:
    """Lose power after every operation; return how many states were lived on from, and how many there are.

    Raises:
        AssertionError: from one of them the file did not come to one whole result.
    """
    tried = total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = prepared("ingest", folder / "home")
        before = shutil.copytree(home.root, folder / "before")
        disk = Disk.of(home.root)
        lines = recorded(home, folder / "strace")
        assert_whole(home)
        assert modelled(before) != modelled(home.root)
        for total, (after, found) in enumerate(states(disk, lines), 1):
            if total % every:
                continue
            tried += 1
            again = written(found, folder / "again")
            try:
                inline_box.live(again)
                assert_whole(again)
            except BaseException as e:
                e.add_note(f"power was lost after {after}")
                raise
            shutil.rmtree(again.root)
        end = disk.after_power_loss(keeps_data=True, keeps_names=True)
        assert {name: file[1] for name, file in end.items() if file is not None} == modelled(home.root), (
            "the model is the real folder"
        )
    return tried, total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, metavar="K", help="only every Kth state")
    tried, total = walk(every=parser.parse_args().every)
    print(f"power losses survived: {tried} of {total} different states")


if __name__ == "__main__":
    main()

"""Files written by `torch.save`, read without torch.

The zip form holds one pickle (`data.pkl`) and one uncompressed entry per storage; the form before torch 1.6 is a row
of pickles followed by the storages. Every size is checked against the file before anything is read, so a small file
cannot ask for much memory. Pickles go through `unpickle`; entry names are never used as paths.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from rvc_batch.errors import ModelCorrupt, ModelNotRvc
from rvc_batch.importers.pickled_data import StorageRef, TensorRef, shown
from rvc_batch.importers.tensors import F32, ITEM_BYTES, ByteOrder, SourceTensor, stored_numbers, to_float32
from rvc_batch.importers.unpickle import unpickle

MAX_FILE_BYTES = 2**31  # voices are 55 MB, raw training files up to 900 MB
MAX_PICKLE_BYTES = 2**26
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
LOOKS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the model itself: download the real file",
    b"<": "is a web page: the download went wrong, download the file itself",
    b"RIFF": "is audio or another RIFF file",
    b"\x08": "looks like an ONNX file: get the .pth or .pt it was made from",
    b"GGUF": "is a GGUF language model",
    b"7z": "is a 7z archive: unpack it first",
    b"Rar!": "is a RAR archive: unpack it first",
}
# what zipfile raises for damaged directories, names, offsets and checksums
_ZIP_ERRORS = (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OverflowError, struct.error, OSError)


@dataclass(frozen=True)
class TorchFile:
    """An open file: its object tree (see `unpickle`) and how to read a storage."""

    name: str
    root: object
    byte_order: ByteOrder
    read_storage: Callable[[StorageRef], bytes]

    def state_dict(self, tree: object) -> dict[str, SourceTensor]:
        """Return the tensors of a dict of the tree; other values are left out.

        Raises:
            ModelNotRvc: `tree` is not a dict.
        """
        if not isinstance(tree, Mapping):
            raise ModelNotRvc(f"{self.name}: expected a dict of tensors, found {type(tree).__name__}")
        return {
            shown(key): SourceTensor(ref.shape, ref.storage.dtype, self._reader(shown(key), ref))
            for key, ref in tree.items()
            if isinstance(ref, TensorRef)
        }

    def _reader(self, key: str, ref: TensorRef) -> Callable[[], F32]:
        def read() -> F32:
            flat = stored_numbers(self.read_storage(ref.storage), ref.storage.dtype, self.byte_order)
            strides = tuple(s * flat.itemsize for s in ref.strides)
            view = np.lib.stride_tricks.as_strided(flat[ref.offset :], ref.shape, strides, writeable=False)
            return to_float32(key, view, ref.storage.dtype)

        return read


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a torch file of either form.

    Raises:
        ModelUnsafe: see `unpickle`. ModelNotRvc: not a torch file. ModelCorrupt: damaged, or sizes that do not add up.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelNotRvc(f"{path.name} has {size} bytes, more than any RVC model ({MAX_FILE_BYTES}); it is not one")
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"PK"):
            try:
                archive = zipfile.ZipFile(file)
            except _ZIP_ERRORS as e:
                raise damaged(path.name, size, str(e)) from e
            yield _open_zip(path.name, archive, size)
        elif start.startswith(b"\x80"):
            yield _open_legacy(path.name, file, size)
        elif size == 0:
            raise damaged(path.name, size, "it is empty")
        else:
            raise ModelNotRvc(f"{path.name} ({size} bytes) is not a torch file: it {_looks_like(file.read(64))}")


def _looks_like(start: bytes) -> str:
    for prefix, what in LOOKS.items():
        if start.lstrip().startswith(prefix):
            return what
    return f"starts with {start[:8]!r}; RVC models are written by torch.save"


def damaged(name: str, size: int, detail: str) -> ModelCorrupt:
    """Return the error for a file that is cut short or altered."""
    return ModelCorrupt(f"{name} ({size} bytes) is damaged or cut short ({shown(detail)}); copy or download it again")


def _open_zip(name: str, archive: zipfile.ZipFile, size: int) -> TorchFile:
    entries = {e.filename: e for e in archive.infolist()}
    if sum(e.file_size for e in archive.infolist()) > size:
        # compressed or overlapping: refused before anything is unpacked
        raise ModelCorrupt(
            f"{name} ({size} bytes) unpacks to more than its own size, which torch never writes; get the original file"
        )
    roots = [e.removesuffix("data.pkl") for e in entries if e.endswith("/data.pkl") and e.count("/") == 1]
    if len(roots) != 1:
        raise ModelNotRvc(
            f"{name} is a zip file but not a torch file (it has {len(roots)} data.pkl, expected 1); if it is an "
            "archive with a voice inside, unpack it first"
        )
    root = roots[0]

    def read(entry: str, limit: int) -> bytes:
        info = entries.get(root + entry)
        if info is None:
            raise damaged(name, size, f"{entry} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise ModelCorrupt(f"{name}: {entry} is compressed or encrypted; torch stores it plain, save it again")
        if info.file_size > limit:
            raise damaged(name, size, f"{entry} has {info.file_size} bytes, expected at most {limit}")
        try:
            return archive.read(info)
        except _ZIP_ERRORS as e:
            raise damaged(name, size, str(e)) from e

    def read_storage(storage: StorageRef) -> bytes:
        expected = storage.numel * ITEM_BYTES[storage.dtype]
        raw = read(f"data/{storage.key}", expected)
        if len(raw) != expected:
            raise damaged(name, size, f"data/{storage.key} has {len(raw)} bytes, expected {expected}")
        return raw

    order = read("byteorder", 16) if root + "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise damaged(name, size, f"byte order {order!r}")
    tree = unpickle(io.BytesIO(read("data.pkl", MAX_PICKLE_BYTES)), name)
    return TorchFile(name, tree, "big" if order == b"big" else "little", read_storage)


def _open_legacy(name: str, file: IO[bytes], size: int) -> TorchFile:
    stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    magic = unpickle(stream, name)
    if magic != LEGACY_MAGIC:
        raise ModelNotRvc(f"{name} is a pickle but not a torch file; RVC models are written by torch.save")
    protocol, system = unpickle(stream, name), unpickle(stream, name)
    if protocol != LEGACY_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelNotRvc(
            f"{name} has an old torch format (protocol {shown(protocol)}) that is not supported; "
            "load it with torch on a trusted machine and save it again"
        )
    tree = unpickle(stream, name)
    keys = unpickle(stream, name)
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        raise damaged(name, size, "the list of storages")
    declared: dict[str, StorageRef] = {}
    _collect_storages(tree, declared)
    spans: dict[str, tuple[int, int]] = {}
    position = stream.tell()
    for key in keys:
        if key not in declared:
            raise damaged(name, size, f"storage {shown(key)} belongs to no tensor")
        file.seek(position)
        count = file.read(8)
        numel = int.from_bytes(count, "little", signed=True)
        if len(count) < 8 or numel != declared[key].numel:
            raise damaged(name, size, f"storage {shown(key)} has {numel} numbers, expected {declared[key].numel}")
        length = numel * ITEM_BYTES[declared[key].dtype]
        spans[key] = (position + 8, length)
        position += 8 + length
    if position > size:
        raise damaged(name, size, f"it should have at least {position} bytes")

    def read_storage(storage: StorageRef) -> bytes:
        if storage.key not in spans or declared[storage.key] != storage:
            raise damaged(name, size, f"storage {shown(storage.key)} is missing")
        start, length = spans[storage.key]
        file.seek(start)
        return file.read(length)

    return TorchFile(name, tree, "little", read_storage)


def _collect_storages(tree: object, found: dict[str, StorageRef]) -> None:
    """Gather the storages of a tree without recursion: its depth is the file's choice."""
    pending, seen = [tree], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, TensorRef):
            found[node.storage.key] = node.storage
        elif isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list | tuple):
            pending.extend(node)

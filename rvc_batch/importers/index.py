"""Retrieval indexes: what a `.index` file holds, and which one belongs to which voice.

The header of a faiss IVF-Flat file is read here in plain Python, so that a wrong or damaged index is an error with a
sentence instead of an assertion in native code, and so that listing voices loads nothing.

Source: layout of faiss/impl/index_write.cpp; names from RVC (infer/vc/utils.py) and Applio (tabs/inference).
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from rvc_batch.errors import IndexInvalid

L2 = 1
QUANTISERS = (b"IxF2", b"IxFl")  # flat, squared distance
MAX_DIM, MAX_LISTS = 65_536, 2**24
BLOCK_BYTES = 2**22
SAME, BY_NAME, PARTLY = 0, 1, 2  # how well a voice and an index match by name

_TRAINED = re.compile(r"(^|_)trained_ivf\d+_", re.IGNORECASE)
_STANDARD = re.compile(r"^(?:(?P<link>.+)_)?added_ivf\d+_flat_nprobe_\d+(?:_(?P<name>.+?))??(?:_v[12])?$")
_SAVED_AT = re.compile(r"(_e\d+(_s\d+)?|_\d+e(_\d+s)?(_best_epoch)?)$")  # epoch and step that RVC and Applio append


@dataclass(frozen=True)
class IndexInfo:
    """What an IVF-Flat index says of itself. dim: width of its vectors · count: how many · size: bytes."""

    dim: int
    count: int
    n_lists: int
    size: int

    @property
    def is_trained_only(self) -> bool:
        """Whether it has centroids but no vectors: the `trained_…` file instead of the `added_…` one."""
        return self.count == 0


def inspect_index(path: Path) -> IndexInfo:
    """Read the structure of a faiss IVF-Flat index without its vectors.

    Raises:
        IndexInvalid: not there, of another type, damaged or cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _Reader(path, file, size).index()
    except OSError as e:
        raise IndexInvalid(f"index {path} cannot be read: {e.strerror}; check the file or convert without it") from e


def check_index(path: Path, feature_dim: int, voice: str) -> IndexInfo:
    """Inspect an index and require that it fits a voice and holds vectors.

    Raises:
        IndexInvalid: as `inspect_index`, or of another width, or empty.
    """
    info = inspect_index(path)
    if info.dim != feature_dim:
        raise IndexInvalid(
            f"index {path} has {info.dim} features per vector, but voice {voice!r} needs {feature_dim}; it belongs to "
            "another voice: replace it, or move it away to convert without an index"
        )
    if info.is_trained_only:
        raise IndexInvalid(
            f"index {path} holds no vectors: it is the 'trained' file of a training; use the one named 'added_…'"
        )
    return info


def read_index(path: Path, feature_dim: int, voice: str) -> IndexInfo:
    """Check an index as `check_index` does, and every number in it.

    Raises:
        IndexInvalid: as `check_index`, or a centroid or vector is not finite.
    """
    info = check_index(path, feature_dim, voice)
    with path.open("rb") as file:
        _Reader(path, file, info.size, reads_numbers=True).index()
    return info


class _Reader:
    """Walks the file with every size checked against its length before it is used.

    reads_numbers: look at centroids and vectors too, in blocks, instead of skipping them.
    """

    def __init__(self, path: Path, file: IO[bytes], size: int, *, reads_numbers: bool = False) -> None:
        self.path, self.file, self.size = path, file, size
        self.reads_numbers = reads_numbers

    def index(self) -> IndexInfo:
        kind = self.take(4)
        if kind != b"IwFl":
            raise IndexInvalid(
                f"index {self.path} ({self.size} bytes) starts with {kind!r}, expected b'IwFl' (faiss IVF-Flat); "
                "it is not an RVC index"
            )
        dim, count = self.header()
        n_lists, _ = self.unpack("<QQ")  # the number of lists to probe is a setting of the search
        self.quantiser(dim, n_lists)
        self.direct_map()
        held = self.lists(dim, n_lists)
        if held != count:
            raise self.damaged(f"its lists hold {held} vectors, its header says {count}")
        return IndexInfo(dim=dim, count=count, n_lists=n_lists, size=self.size)

    def header(self) -> tuple[int, int]:
        dim, count, _, _, trained, metric = self.unpack("<iqqqBi")
        if metric != L2:
            raise IndexInvalid(f"index {self.path} uses metric {metric}, expected {L2} (squared distance)")
        if not 1 <= dim <= MAX_DIM or count < 0 or trained > 1:
            raise self.damaged(f"{dim} dimensions, {count} vectors")
        return dim, count

    def quantiser(self, dim: int, n_lists: int) -> None:
        kind = self.take(4)
        if kind not in QUANTISERS:
            raise IndexInvalid(f"index {self.path} has the quantiser {kind!r}, expected a flat one")
        quantiser_dim, centroids = self.header()
        (words,) = self.unpack("<Q")
        if (quantiser_dim, centroids) != (dim, n_lists) or words != dim * n_lists or not 1 <= n_lists <= MAX_LISTS:
            raise self.damaged(f"{centroids} centroids for {n_lists} lists")
        self.numbers(4 * words)

    def direct_map(self) -> None:
        kind, entries = self.unpack("<BQ")
        if kind not in (0, 1):
            raise self.damaged(f"direct map of type {kind}")
        self.skip(8 * entries)

    def lists(self, dim: int, n_lists: int) -> int:
        kind = self.take(4)
        stored_lists, code_size = self.unpack("<QQ")
        form = self.take(4)
        (values,) = self.unpack("<Q")
        if kind != b"ilar" or (stored_lists, code_size) != (n_lists, 4 * dim):
            raise self.damaged(f"inverted lists {kind!r}, {stored_lists} of {code_size} bytes per vector")
        if form == b"full" and values == n_lists:
            sizes: Sequence[int] = self.unpack(f"<{values}Q")
        elif form == b"sprs" and values <= 2 * n_lists and values % 2 == 0:
            sizes = self.unpack(f"<{values}Q")[1::2]  # pairs of list and size
        else:
            raise self.damaged(f"list sizes {form!r} of {values}")
        if self.reads_numbers:
            for count in sizes:
                self.numbers(count * 4 * dim)
                self.skip(count * 8)  # identifiers
        else:
            self.skip(sum(sizes) * (4 * dim + 8))
        return sum(sizes)

    def numbers(self, length: int) -> None:
        """Pass over float32 numbers; with `reads_numbers` all must be finite."""
        if not self.reads_numbers:
            self.skip(length)
            return
        for start in range(0, length, BLOCK_BYTES):
            block = np.frombuffer(self.take(min(BLOCK_BYTES, length - start)), "<f4")
            if not np.isfinite(block).all():
                raise self.damaged("it holds NaN or infinite numbers")

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def take(self, length: int) -> bytes:
        if self.file.tell() + length > self.size:
            raise self.damaged(f"{self.file.tell() + length} bytes are needed")
        return self.file.read(length)

    def skip(self, length: int) -> None:
        if self.file.tell() + length > self.size:
            raise self.damaged(f"{self.file.tell() + length} bytes are needed")
        self.file.seek(length, 1)

    def damaged(self, detail: str) -> IndexInvalid:
        return IndexInvalid(
            f"index {self.path} ({self.size} bytes) is damaged or cut short ({detail}); copy or download it again"
        )


def match_index(
    names: Sequence[str], indexes: Sequence[Path], *, neighbours: Sequence[str], own_folder: bool
) -> Path | None:
    """Return the first of `matching_indexes`, None if none belongs to the voice."""
    return next(iter(matching_indexes(names, indexes, neighbours=neighbours, own_folder=own_folder)), None)


def matching_indexes(
    names: Sequence[str], indexes: Sequence[Path], *, neighbours: Sequence[str], own_folder: bool
) -> list[Path]:
    """Return which of some indexes belong to a voice: those that match best, the newest first.

    In this order: the same name; the voice's name in a standard `added_IVF…` name; the only index of a folder that
    is the voice's own, or one that names no voice; a name that contains the voice's or is contained in it, unless
    another voice matches that index better. `trained_…` files never match.

    Args:
        names: what the voice is called: its file without suffix, its folder. neighbours: the other voices beside it.
        own_folder: the folder is this voice's alone.
    """
    usable = [index for index in indexes if not is_trained_name(index)]
    ranks = {index: rank for index in usable if (rank := _best_rank(names, index)) is not None}
    named = [index for index in ranks if ranks[index] <= BY_NAME]
    if not named and len(usable) == 1 and not neighbours and (own_folder or _named_voice(usable[0]) is None):
        return usable
    if not named:
        named = [index for index in ranks if all(_rank(other, index) not in (SAME, BY_NAME) for other in neighbours)]
    best = min((ranks[index] for index in named), default=None)
    equals = [index for index in named if ranks[index] == best]
    return sorted(equals, key=lambda index: (index.stat().st_mtime_ns, index.name), reverse=True)


def names_voice(names: Sequence[str], index: Path) -> bool:
    """Say whether the name of an index, `trained_…` ones included, is exactly that of one of these voices."""
    return _best_rank(names, index.with_name(_TRAINED.sub(r"\1added_ivf1_", index.name))) in (SAME, BY_NAME)


def is_trained_name(index: Path) -> bool:
    """Say whether a file has the name of the empty index that training leaves beside the real one."""
    return _TRAINED.search(index.name) is not None


def _best_rank(names: Sequence[str], index: Path) -> int | None:
    return min((rank for name in names if (rank := _rank(name, index)) is not None), default=None)


def _rank(voice: str, index: Path) -> int | None:
    stem = _plain(voice)
    if stem == _plain(index.stem):
        return SAME
    named = _named_voice(index)
    if named is None:
        return None
    base = _SAVED_AT.sub("", stem)
    if base == named:
        return BY_NAME
    words, other = _words(base), _words(named)
    return PARTLY if _contains(words, other) or _contains(other, words) else None


def _named_voice(index: Path) -> str | None:
    stem = _plain(index.stem)
    standard = _STANDARD.match(stem)
    return (standard["name"] or standard["link"]) if standard else stem


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _words(name: str) -> list[str]:
    return re.findall(r"\w+", name.replace("_", " "))


def _contains(words: list[str], part: list[str]) -> bool:
    return bool(part) and any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))

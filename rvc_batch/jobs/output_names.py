"""Names in the outbox: which two names are one, and what the next free one is. Pure; touches no disk.

Two names are one when a case-insensitive file system would think so, on every machine alike: an outbox may move.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator

NAME_MAX_BYTES = 255  # of one path component, on every file system of interest
VARIANT_MAX_BYTES = 120


def output_key(output_rel: bytes) -> bytes:
    """Return what is equal for names that differ only in case or in Unicode composition.

    Source: canonical caseless matching, Unicode Standard definition D145; undecodable bytes stay as they are.
    """
    name = unicodedata.normalize("NFD", _text(output_rel)).casefold()
    return _bytes(unicodedata.normalize("NFC", name))


def candidates(output_rel: bytes) -> Iterator[bytes]:
    """Yield the wanted name, then "name (2).ext", "name (3).ext", … without end."""
    folder, stem, ending = _parts(output_rel)
    for number in itertools.count(1):
        mark = b"" if number == 1 else f" ({number})".encode()
        yield folder + _shortened(stem, mark + ending)


def variant_name(output_rel: bytes, variant: str) -> bytes:
    """Return "name (variant).ext", for one of several results of one file."""
    folder, stem, ending = _parts(output_rel)
    return folder + _shortened(stem, b" (" + _shortened(_bytes(variant), b"", VARIANT_MAX_BYTES) + b")" + ending)


def display_name(path: bytes) -> str:
    """Return the path as text with undecodable bytes replaced."""
    return path.decode("utf-8", "replace")


def _parts(output_rel: bytes) -> tuple[bytes, bytes, bytes]:
    """Split into the folder with its slash, the stem, and the ending with its dot."""
    folder, slash, name = output_rel.rpartition(b"/")
    stem, dot, suffix = name.rpartition(b".")
    if not stem:  # ".name", or no dot at all
        stem, dot, suffix = name, b"", b""
    return folder + slash, stem, dot + suffix


def _shortened(stem: bytes, ending: bytes, most: int = NAME_MAX_BYTES) -> bytes:
    """Join, cutting the stem between characters where the whole is too long for a file system."""
    room = most - len(ending)
    if len(stem) <= room:
        return stem + ending
    cut = stem[:room]
    while cut and stem[len(cut)] & 0xC0 == 0x80:  # the next byte continues a character
        cut = cut[:-1]
    return cut + ending


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")

"""Which containers need PyAV: told by their first bytes, with the one demuxer that may open each.

Nothing is probed: FFmpeg knows formats that fetch other files, and a file may only be opened as what it says it is.
The daemon asks here as well, so this file imports nothing.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

INSTALL_MEDIA = "pip install av, or install rvc-batch with its extra: pip install '.[media]'"


@dataclass(frozen=True)
class MediaKind:
    """A container: its name in a sentence, FFmpeg's demuxer, and the bytes it has at `offset`."""

    name: str
    demuxer: str
    offset: int
    magic: bytes


MEDIA_KINDS = (
    *(MediaKind("MPEG-4 (m4a, mp4, mov)", "mov", 4, magic) for magic in (b"ftyp", b"moov", b"mdat", b"wide")),
    MediaKind("Matroska (mkv, webm)", "matroska", 0, b"\x1a\x45\xdf\xa3"),
    MediaKind("Windows Media (wma)", "asf", 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    *(MediaKind("raw AAC", "aac", 0, b"\xff" + second) for second in (b"\xf0", b"\xf1", b"\xf8", b"\xf9")),
    MediaKind("AVI", "avi", 8, b"AVI "),
    MediaKind("AC-3", "ac3", 0, b"\x0b\x77"),
    MediaKind("AMR", "amr", 0, b"#!AMR"),
    MediaKind("Monkey's Audio (ape)", "ape", 0, b"MAC "),
    MediaKind("WavPack (wv)", "wv", 0, b"wvpk"),
)


def media_kind(head: bytes) -> MediaKind | None:
    """Return the container that a file begins as, or None if it is none that needs PyAV."""
    return next((k for k in MEDIA_KINDS if head[k.offset : k.offset + len(k.magic)] == k.magic), None)


def has_media() -> bool:
    """Is PyAV installed? Looks, and loads nothing; true as soon as it is installed."""
    return importlib.util.find_spec("av") is not None

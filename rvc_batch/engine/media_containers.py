"""How long must a file be that only PyAV can decode? The lengths that MPEG-4, Matroska, Windows Media and AVI state.

Only the outermost headers are read, as in `containers`; nothing is decoded. Written from ISO/IEC 14496-12 (boxes), RFC
8794 (EBML), the ASF specification of Microsoft, and RIFF.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAX_BOXES = 100_000  # a fragmented recording has a few per second; a crafted one must not keep us busy
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
EBML_SEGMENT = 0x18538067


def promised_end(file: BinaryIO, demuxer: str, size: int) -> int | None:
    """Return how many bytes the container promises, None if it promises nothing.

    Args:
        file: seekable. demuxer: as in `media_kinds`. size: how many bytes of it there are.

    Raises:
        OSError: the file cannot be read. IndexError, struct.error: a part that must be there is not.
    """
    read = {"mov": _mpeg4, "matroska": _matroska, "asf": _asf, "avi": _avi}.get(demuxer)
    return read(file, size) if read else None


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _mpeg4(file: BinaryIO, size: int) -> int | None:
    offset, has_index = 0, False
    for _ in range(MAX_BOXES):
        if offset >= size:
            break
        length, name = struct.unpack(">I4s", _at(file, offset, 8))
        has_index = has_index or name == b"moov"
        if length == 1:
            (length,) = struct.unpack(">Q", _at(file, offset + 8, 8))
        if length < 8:  # 0: to the end of the file, whatever that is; else junk behind the last box
            offset = 0
            break
        offset += length
    if not has_index and offset <= size:
        raise IndexError("no moov, which says where everything is and comes last in many files")
    return offset or None


def _matroska(file: BinaryIO, size: int) -> int | None:
    offset, identity = 0, 0
    while identity != EBML_SEGMENT:
        identity, offset, _ = _ebml_number(file, offset)
        length, offset, ones = _ebml_number(file, offset)
        length &= ones  # without the marker of the width
        if length == ones:
            return None  # unknown: a live recording
        offset += length
    return offset


def _ebml_number(file: BinaryIO, offset: int) -> tuple[int, int, int]:
    """Return a number of variable width, where it ends, and the mask of its bits without the marker."""
    width = 9 - _at(file, offset, 1)[0].bit_length()
    data = _at(file, offset, width)
    if width > 8 or len(data) < width:
        raise IndexError("no EBML number")
    return int.from_bytes(data), offset + width, (1 << 7 * width) - 1


def _asf(file: BinaryIO, size: int) -> int | None:
    """Return the file size of the File Properties object; 0 there means a live recording."""
    (header,) = struct.unpack("<Q", _at(file, 16, 8))
    offset = 30
    while offset < header:
        identity, length = struct.unpack("<16sQ", _at(file, offset, 24))
        if identity == ASF_FILE_PROPERTIES:
            (whole,) = struct.unpack("<Q", _at(file, offset + 40, 8))
            return int(whole) or None
        offset += max(length, 24)
    return None


def _avi(file: BinaryIO, size: int) -> int | None:
    (length,) = struct.unpack("<I", _at(file, 4, 4))
    return 8 + int(length) if length else None

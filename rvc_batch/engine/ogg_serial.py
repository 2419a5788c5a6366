"""The serial number of an Ogg stream, which libsndfile draws at random, set to 1: equal renderings are equal bytes.

A file has one stream, whose number needs to differ only from others multiplexed with it. Every page carries it, and a
checksum over itself, so both are written again where they stand. Source: RFC 3533, section 6.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

SERIAL = struct.pack("<I", 1)
HEADER_BYTES = 27
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def fix_serial(path: Path) -> None:
    """Write the serial number and checksum of every page anew; the file keeps its length.

    Raises:
        OSError: it cannot be written. ValueError: it is no sequence of Ogg pages.
    """
    with path.open("r+b") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            file.seek(at)
            header = bytearray(file.read(HEADER_BYTES))
            if header[:4] != b"OggS" or len(header) < HEADER_BYTES:
                raise ValueError(f"no Ogg page at byte {at} of {path}")
            lacing = file.read(header[26])
            body = file.read(sum(lacing))
            header[14:18], header[22:26] = SERIAL, bytes(4)
            header[22:26] = struct.pack("<I", checksum(bytes(header) + lacing + body))
            file.seek(at)
            file.write(header)
            at += HEADER_BYTES + len(lacing) + len(body)


def checksum(page: bytes) -> int:
    """Return the CRC-32 of Ogg: polynomial 04C11DB7, from 0, bits not reflected; zlib's is its mirror image."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(struct.pack("<I", mirrored).translate(_REVERSED))

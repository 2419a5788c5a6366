"""The few facts of FLAC, Ogg and MP3 streams that tell whether the last frame is there, whole. Pure functions of bytes.

Only headers, sizes and checksums are read; no sample is ever decoded. Written from RFC 9639 (FLAC), RFC 3533 (Ogg) and
ISO/IEC 11172-3 with the Xing and VBRI conventions (MP3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

TAIL_BYTES = 65_536


def strip_tags(data: bytes) -> bytes:
    """Remove ID3v1 and APE tags from the end of a stream."""
    while True:
        if data[-128:-125] == b"TAG":
            data = data[:-128]
        elif data[-32:-24] == b"APETAGEX":
            length, flags = struct.unpack("<I4xI", data[-20:-8])
            data = data[: -(length + (32 if flags >> 31 else 0))]
        else:
            return data


def id3_length(head: bytes) -> int:
    """Return the length of an ID3v2 tag with header and footer from its first 10 bytes."""
    a, b, c, d = head[6:10]
    return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)


def _backwards(data: bytes, pattern: bytes) -> Iterator[int]:
    at = data.rfind(pattern)
    while at >= 0:
        yield at
        at = data.rfind(pattern, 0, at + len(pattern) - 1)


def _crc_table(width: int, polynomial: int) -> tuple[int, ...]:
    top, mask = 1 << (width - 1), (1 << width) - 1
    table = []
    for byte in range(256):
        value = byte << (width - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return tuple(table)


def _crc(table: tuple[int, ...], width: int, data: bytes) -> int:
    value, shift, mask = 0, width - 8, (1 << width) - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[(value >> shift) ^ byte]
    return value


# ---------------------------------------------------------------------------------------------------------------------
# FLAC

_CRC8 = _crc_table(8, 0x07)
_CRC16 = _crc_table(16, 0x8005)


@dataclass(frozen=True)
class FlacInfo:
    """STREAMINFO: block in samples, largest_frame in bytes (a bound), rate in Hz, samples per channel (0 = unknown)."""

    block: int
    largest_frame: int
    rate: int
    samples: int


def flac_info(head: bytes) -> FlacInfo:
    """Read the first 42 bytes of a FLAC stream."""
    block, largest = struct.unpack(">H", head[10:12])[0], int.from_bytes(head[15:18])
    packed = struct.unpack(">Q", head[18:26])[0]
    channels, bits = (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    bound = block * channels * (bits + 1) // 8 + 64
    return FlacInfo(block, largest or bound, packed >> 44, packed & (1 << 36) - 1)


def flac_ends(tail: bytes, info: FlacInfo) -> bool:
    """Is the frame that ends the stream there, whole? Its CRC must hold up to the end of `tail` (less tags)."""
    tail = strip_tags(tail)
    for at in _backwards(tail, b"\xff"):
        end = _flac_frame_end(tail[at : at + 16], info.block)
        if end == info.samples:
            return _crc(_CRC16, 16, tail[at:]) == 0
    return False


def _flac_frame_end(head: bytes, stream_block: int) -> int | None:
    """Return the number of the sample after this frame, or None if it is no frame header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # the number is coded like UTF-8, up to 7 bytes
    if ones == 1 or ones > 7:
        return None
    number = head[4] & (0x7F >> ones)
    at = 5
    for byte in head[5 : 4 + max(ones, 1)]:
        number, at = number << 6 | byte & 0x3F, at + 1
    code, rate_code = head[2] >> 4, head[2] & 15
    extra = {6: 1, 7: 2}.get(code, 0)
    if code == 0:
        return None
    if code == 1:
        block = 192
    elif code <= 5:
        block = 576 << (code - 2)
    elif code >= 8:
        block = 256 << (code - 8)
    else:
        block = int.from_bytes(head[at : at + extra]) + 1
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _crc(_CRC8, 8, head[: at + 1]) != 0:
        return None
    return (number if head[1] & 1 else number * stream_block) + block


# ---------------------------------------------------------------------------------------------------------------------
# Ogg

_CRC32 = _crc_table(32, 0x04C11DB7)


@dataclass(frozen=True)
class OggEnd:
    """The last whole page: does it close the stream, and at which granule position (−1 = none found)."""

    is_last: bool
    granule: int


def ogg_end(tail: bytes) -> OggEnd:
    """Find the last page that is whole and has the right checksum."""
    for at in _backwards(tail, b"OggS"):
        table = tail[at + 27 : at + 27 + tail[at + 26]] if len(tail) > at + 26 else b""
        if not table or len(table) < tail[at + 26]:
            continue
        page = tail[at : at + 27 + len(table) + sum(table)]
        if len(page) < 27 + len(table) + sum(table):
            continue
        (checksum,) = struct.unpack("<I", page[22:26])
        if _crc(_CRC32, 32, page[:22] + bytes(4) + page[26:]) == checksum:
            return OggEnd(bool(page[5] & 4), struct.unpack("<q", page[6:14])[0])
    return OggEnd(False, -1)


def ogg_rate(head: bytes) -> int:
    """Return granules per second from the first page's 64 bytes, 0 if the codec is not known."""
    packet = head[28:]
    if packet[:7] == b"\x01vorbis":
        return int.from_bytes(packet[12:16], "little")
    if packet[:8] == b"OpusHead":
        return 48_000
    if packet[:5] == b"\x7fFLAC":
        return int.from_bytes(packet[27:30]) >> 4
    if packet[:8] == b"Speex   ":
        return int.from_bytes(packet[36:40], "little")
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# MP3

_BIT_RATES = {  # kbit/s by (MPEG-1?, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True)
class MpegFrame:
    """One frame header: length in bytes, samples per channel, rate in Hz, bit_rate in bit/s."""

    length: int
    samples: int
    rate: int
    bit_rate: int
    is_mpeg1: bool
    layer: int

    def is_like(self, other: MpegFrame) -> bool:
        """Could both be of one stream?"""
        return (self.rate, self.layer, self.is_mpeg1) == (other.rate, other.layer, other.is_mpeg1)


@dataclass(frozen=True)
class MpegCount:
    """What a Xing, Info or VBRI header counts; 0 = not said."""

    frames: int
    bytes: int


def mp3_frame(head: bytes) -> MpegFrame | None:
    """Read a frame header from the first 4 bytes; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    is_mpeg1 = version == 3
    bit_rate, hertz = _BIT_RATES[is_mpeg1, layer][bits] * 1000, _RATES[version][rate]
    samples = {1: 384, 2: 1152, 3: 1152 if is_mpeg1 else 576}[layer]
    slot = 4 if layer == 1 else 1
    length = (samples // 8 * bit_rate // hertz // slot + padding) * slot
    return MpegFrame(length, samples, hertz, bit_rate, is_mpeg1, layer)


def mp3_count(head: bytes) -> MpegCount:
    """Read the Xing, Info or VBRI header of the first frame, if there is one."""
    first = mp3_frame(head)
    assert first is not None
    is_mono = head[3] >> 6 == 3
    side = (17 if is_mono else 32) if first.is_mpeg1 else (9 if is_mono else 17)
    xing = head[4 + side :]
    if xing[:4] in (b"Xing", b"Info"):
        (flags,) = struct.unpack(">I", xing[4:8])
        frames = struct.unpack(">I", xing[8:12])[0] if flags & 1 else 0
        at = 12 if flags & 1 else 8
        return MpegCount(frames, struct.unpack(">I", xing[at : at + 4])[0] if flags & 2 else 0)
    if head[36:40] == b"VBRI":
        length, frames = struct.unpack(">II", head[46:54])
        return MpegCount(frames, length)
    return MpegCount(0, 0)


def mp3_is_cut(tail: bytes, first: MpegFrame) -> bool:
    """Does the last frame of a stream run past the end of `tail`?"""
    tail = strip_tags(tail)
    at = tail.find(b"\xff")
    while at >= 0:
        last = _last_of_chain(tail, at, first)
        if last is not None:
            end = last[0] + last[1].length
            return end > len(tail) or (0 < len(tail) - end < 4 and tail[end] == 0xFF)
        at = tail.find(b"\xff", at + 1)
    return False


def _last_of_chain(tail: bytes, at: int, first: MpegFrame) -> tuple[int, MpegFrame] | None:
    """Follow frame headers from `at`; at least three must agree, else the sync was an accident."""
    found: tuple[int, MpegFrame] | None = None
    links = 0
    while True:
        frame = mp3_frame(tail[at : at + 4])
        if frame is None or not frame.is_like(first):
            return found if links >= 3 else None
        found, links, at = (at, frame), links + 1, at + frame.length

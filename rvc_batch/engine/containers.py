"""Does an audio file hold all the bytes its container promises? A cheap look at headers and tail, never a decode.

Audio libraries open a file cut at one third and report the shorter length as if it were whole, so a half-copied file
can only be told from a whole one here. The checks read a few kilobytes of a binary file object; they know nothing of
paths, clocks or jobs. A container that is not known, or promises nothing, is `OPEN_ENDED`: only time can tell.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import BinaryIO

from rvc_batch.engine import bitstreams, media_containers
from rvc_batch.engine.bitstreams import TAIL_BYTES
from rvc_batch.engine.media_kinds import MediaKind, media_kind
from rvc_batch.errors import InputTruncated


class Completeness(StrEnum):
    """What the container says about the bytes that are there."""

    WHOLE = "whole"  # everything promised is there
    SHORT = "short"  # less than promised
    OPEN_ENDED = "open-ended"  # the container promises nothing


@dataclass(frozen=True, kw_only=True)
class Container:
    """What `inspect` found. `promised` and `present` count bytes; `seconds` is an estimate for the queue display."""

    kind: str
    completeness: Completeness
    present: int
    promised: int | None = None
    seconds: float | None = None
    zero_tail: bool = False  # the last 64 KB are all zero: a pre-allocated copy looks like this
    needs_media: bool = False  # libsndfile cannot decode it, PyAV can

    @property
    def shortfall(self) -> str:
        """Say what is missing, in the words of an error message."""
        if self.promised is not None:
            return f"its {self.kind} header promises {self.promised} bytes, the file holds {self.present}"
        return f"its {self.kind} stream stops in the middle after {self.present} bytes"


def truncated(name: str, container: Container) -> InputTruncated:
    """Return the error of a file called `name` that is `SHORT`."""
    return InputTruncated(f"{name} is not complete: {container.shortfall}; copy it again")


def inspect(file: BinaryIO, size: int) -> Container:
    """Judge the first `size` bytes of a seekable file.

    Raises:
        OSError: the file cannot be read.
    """
    head = _at(file, 0, 64)
    media = media_kind(head)
    check = functools.partial(_media, media) if media else _checker(head)
    found = Container(kind="unknown", completeness=Completeness.OPEN_ENDED, present=size)
    if check is not None:
        try:
            found = check(file, size)
        except (struct.error, IndexError, OverflowError):  # it stops inside a header, or the header is nonsense
            name = media.name if media else _kind(head)
            found = Container(kind=name, completeness=Completeness.SHORT, present=size)
    tail = _at(file, max(0, size - TAIL_BYTES), min(size, TAIL_BYTES))
    zero_tail = bool(tail) and not tail.strip(b"\0")
    return replace(found, zero_tail=zero_tail, needs_media=media is not None)


def _checker(head: bytes) -> Callable[[BinaryIO, int], Container] | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] in (b"WAVE", b""):
        return _riff
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b""):
        return _aiff
    if head[:4] == b"caff":
        return _caf
    if head[:16] == W64_RIFF:
        return _w64
    if head[:4] == b"OggS":
        return _ogg
    if head[:4] == b"fLaC":
        return _flac
    if head[:3] == b"ID3":
        return _after_id3
    return _mp3 if bitstreams.mp3_frame(head) else None


def _media(kind: MediaKind, file: BinaryIO, size: int) -> Container:
    end = media_containers.promised_end(file, kind.demuxer, size)
    state = Completeness.OPEN_ENDED if end is None else Completeness.SHORT if end > size else Completeness.WHOLE
    return Container(kind=kind.name, completeness=state, present=size, promised=end)


def _kind(head: bytes) -> str:
    if head[:3] == b"ID3":
        return "MP3"
    return {b"RIFF": "WAV", b"FORM": "AIFF", b"caff": "CAF", b"riff": "W64", b"OggS": "Ogg", b"fLaC": "FLAC"}.get(
        head[:4], head[:4].decode("latin-1")
    )


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


# ---------------------------------------------------------------------------------------------------------------------
# Chunked containers: the audio chunk's header says how long it is.

W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # of the GUIDs of "fmt " and "data"
UNKNOWN_32 = 0xFFFFFFFF  # a stream's writer did not know the length (ffmpeg to a pipe)
SOX_UNKNOWN = 0x7FFFF000  # the same by SoX, rounded down to whole sample frames (at most 4 KB)
MAX_CHUNKS = 4096  # a real file has a dozen; a crafted one must not keep us busy


@dataclass(frozen=True)
class _Audio:
    """The audio chunk: where its data starts and how long its header says it is (None = not known)."""

    start: int
    length: int | None


def _chunked(kind: str, size: int, audio: _Audio | None, *, outer: int | None, bytes_per_second: float) -> Container:
    """Compare the audio chunk, or else the outer length (None = not said), with what is there."""
    if audio is None:
        state = Completeness.SHORT if outer is None or outer > size else Completeness.WHOLE
        return Container(kind=kind, completeness=state, present=size, promised=outer)
    held = max(0, size - audio.start)
    seconds = min(held, held if audio.length is None else audio.length) / bytes_per_second if bytes_per_second else None
    if audio.length is None:
        return Container(kind=kind, completeness=Completeness.OPEN_ENDED, present=size, seconds=seconds)
    end = audio.start + audio.length
    state = Completeness.SHORT if end > size else Completeness.WHOLE
    return Container(kind=kind, completeness=state, present=size, promised=end, seconds=seconds)


def _riff(file: BinaryIO, size: int) -> Container:
    magic, riff_size = struct.unpack("<4sI", _at(file, 0, 8))
    kind = {b"RIFF": "WAV"}.get(magic, magic.decode())
    outer = None if riff_size in (0, UNKNOWN_32) else 8 + riff_size
    data_64, rate, offset = None, 0, 12
    for _ in range(MAX_CHUNKS):
        if offset + 8 > size:
            break
        name, length = struct.unpack("<4sI", _at(file, offset, 8))
        if name == b"ds64":
            riff_64, data_64 = struct.unpack("<QQ", _at(file, offset + 8, 16))
            outer = 8 + riff_64
        elif name == b"fmt ":
            rate = struct.unpack("<I", _at(file, offset + 16, 4))[0]
        elif name == b"data":
            start = offset + 8
            return _chunked(
                kind,
                size,
                _Audio(start, _riff_length(length, data_64, size - start)),
                outer=outer,
                bytes_per_second=rate,
            )
        offset += 8 + length + length % 2
    return _chunked(kind, size, None, outer=outer, bytes_per_second=rate)


def _riff_length(length: int, data_64: int | None, held: int) -> int | None:
    if length == UNKNOWN_32:
        return data_64
    if length == 0 and held > 0:  # a recorder that was killed before it wrote the header again
        return None
    if SOX_UNKNOWN - 4096 < length <= SOX_UNKNOWN + 4095 and held < length:
        return None
    return length


def _w64(file: BinaryIO, size: int) -> Container:
    outer = struct.unpack("<Q", _at(file, 16, 8))[0]
    rate, offset = 0, 40
    for _ in range(MAX_CHUNKS):
        if offset + 24 > size:
            break
        guid, length = struct.unpack("<16sQ", _at(file, offset, 24))
        if guid == b"fmt " + W64_TAIL:
            rate = struct.unpack("<I", _at(file, offset + 24 + 8, 4))[0]
        elif guid == b"data" + W64_TAIL:
            held = size - offset - 24
            known = None if length <= 24 and held > 0 else max(0, length - 24)
            return _chunked("W64", size, _Audio(offset + 24, known), outer=outer, bytes_per_second=rate)
        if length < 24:
            break
        offset += (length + 7) // 8 * 8
    return _chunked("W64", size, None, outer=outer, bytes_per_second=rate)


def _aiff(file: BinaryIO, size: int) -> Container:
    form_size = struct.unpack(">I", _at(file, 4, 4))[0]
    seconds, audio, offset = None, None, 12
    for _ in range(MAX_CHUNKS):
        if offset + 8 > size:
            break
        name, length = struct.unpack(">4sI", _at(file, offset, 8))
        if name == b"COMM":
            _channels, frames, _bits, exponent, mantissa = struct.unpack(">hIhHQ", _at(file, offset + 8, 18))
            rate = mantissa * 2.0 ** (exponent - 16383 - 63) if exponent else 0.0
            seconds = frames / rate if rate > 0 else None
        elif name == b"SSND":
            held = size - offset - 8
            audio = _Audio(offset + 8, None if length in (0, UNKNOWN_32) and held > 8 else length)
            if audio.length is None or audio.start + audio.length > size:
                break
        offset += 8 + length + length % 2
    found = _chunked("AIFF", size, audio, outer=8 + form_size, bytes_per_second=0)
    return replace(found, seconds=seconds)


def _caf(file: BinaryIO, size: int) -> Container:
    rate, offset = 0.0, 8
    for _ in range(MAX_CHUNKS):
        if offset + 12 > size:
            break
        name, length = struct.unpack(">4sq", _at(file, offset, 12))
        if name == b"desc":
            hertz, _id, _flags, packet_bytes, packet_frames = struct.unpack(">d4sIII", _at(file, offset + 12, 24))
            rate = hertz * packet_bytes / packet_frames if packet_frames else 0.0
        elif name == b"data":
            known = None if length < 0 else length
            return _chunked("CAF", size, _Audio(offset + 12, known), outer=None, bytes_per_second=rate)
        if length < 0:
            break
        offset += 12 + length
    return _chunked("CAF", size, None, outer=None, bytes_per_second=rate)


# ---------------------------------------------------------------------------------------------------------------------
# Streams of frames: the last one must be there, whole.


def _flac(file: BinaryIO, size: int, start: int = 0) -> Container:
    info = bitstreams.flac_info(_at(file, start, 42))
    seconds = info.samples / info.rate if info.samples and info.rate else None
    if not info.samples:
        return Container(kind="FLAC", completeness=Completeness.OPEN_ENDED, present=size)
    reach = max(TAIL_BYTES, 2 * info.largest_frame)
    offset = max(start + 42, size - reach)
    whole = bitstreams.flac_ends(_at(file, offset, size - offset), info)
    state = Completeness.WHOLE if whole else Completeness.SHORT
    return Container(kind="FLAC", completeness=state, present=size, seconds=seconds)


def _ogg(file: BinaryIO, size: int) -> Container:
    offset = max(0, size - 2 * TAIL_BYTES)  # a page is at most 65 307 bytes
    end = bitstreams.ogg_end(_at(file, offset, size - offset))
    rate = bitstreams.ogg_rate(_at(file, 0, 64))
    seconds = end.granule / rate if end.granule > 0 and rate else None
    state = Completeness.WHOLE if end.is_last else Completeness.SHORT
    return Container(kind="Ogg", completeness=state, present=size, seconds=seconds)


def _after_id3(file: BinaryIO, size: int) -> Container:
    start = bitstreams.id3_length(_at(file, 0, 10))
    if start + 4 > size:
        return Container(kind="MP3", completeness=Completeness.SHORT, present=size, promised=start)
    following = _at(file, start, 4)
    return _flac(file, size, start) if following == b"fLaC" else _mp3(file, size, start)


def _mp3(file: BinaryIO, size: int, start: int = 0) -> Container:
    head = _at(file, start, TAIL_BYTES)
    padding = len(head) - len(head.lstrip(b"\0"))  # some taggers leave zeros between the tag and the first frame
    start, head = start + padding, head[padding:]
    first = bitstreams.mp3_frame(head)
    if first is None:
        return Container(kind="MP3", completeness=Completeness.OPEN_ENDED, present=size)
    count = bitstreams.mp3_count(head)
    seconds = (
        count.frames * first.samples / first.rate if count.frames else (size - start) / (first.bit_rate / 8)
    )  # fmt: skip
    if count.bytes:
        state = Completeness.SHORT if start + count.bytes > size else Completeness.WHOLE
        return Container(kind="MP3", completeness=state, present=size, promised=start + count.bytes, seconds=seconds)
    offset = max(start, size - TAIL_BYTES)
    cut = bitstreams.mp3_is_cut(_at(file, offset, size - offset), first)
    state = Completeness.SHORT if cut else Completeness.OPEN_ENDED
    return Container(kind="MP3", completeness=state, present=size, seconds=seconds)

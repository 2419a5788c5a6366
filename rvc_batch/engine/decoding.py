"""Audio files opened for reading, whatever they are: blocks of float32, and what the container says.

libsndfile does what it knows, PyAV the rest. No header is trusted: rates and channels are checked before anything is
allocated for them, and lengths come from what was decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import soundfile as sf

from rvc_batch.engine import containers
from rvc_batch.engine.containers import Completeness
from rvc_batch.engine.media_kinds import INSTALL_MEDIA, has_media, media_kind
from rvc_batch.engine.types import F32
from rvc_batch.errors import (
    FormatNeedsFfmpeg,
    InputEmpty,
    InputNotAudio,
    InputRate,
    InputTruncated,
    InputUnreadable,
    SourceGone,
)

BLOCK_SAMPLES = 1 << 17  # of all channels together
RATE_RANGE_HZ = (4_000, 768_000)

# What a file that is not audio starts with, for the sentence in the error.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
)


class AudioReader(Protocol):
    """An open audio file.

    sample_rate: Hz · promised: samples per channel by the header, 0 = not said · format: for people · comment: its
    comment tag · warnings: what is odd about the file.
    """

    sample_rate: int
    channels: int
    promised: int
    format: str
    comment: str
    warnings: tuple[str, ...]

    def blocks(self) -> Iterator[F32]:
        """Yield the audio once, in order, as [n, channels], ±1.

        Raises:
            InputTruncated: it stops decoding.
        """

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_audio(source: Path) -> AudioReader:
    """Open a file by what is in it, not by its name.

    Raises:
        SourceGone, InputUnreadable, InputEmpty, InputTruncated, InputNotAudio, FormatNeedsFfmpeg, InputRate,
        InputNoAudio.
    """
    try:
        size = source.stat().st_size
        with source.open("rb") as f:
            head = f.read(64)
            container = containers.inspect(f, size)
    except FileNotFoundError as e:
        raise SourceGone(f"{source} is not there any more") from e
    except OSError as e:
        raise InputUnreadable(f"{source} cannot be read: {e.strerror}; check its permissions") from e
    if size == 0:
        raise InputEmpty(f"{source.name} has no bytes; copy it again")
    is_cut = container.completeness is Completeness.SHORT
    audio: AudioReader
    try:
        audio = _SoundfileReader(source)
    except (sf.LibsndfileError, TypeError) as e:
        kind = media_kind(head)
        if kind is None and is_cut:
            raise containers.truncated(source.name, container) from e
        if kind is None:
            raise InputNotAudio(f"{source.name} is not audio: it looks like {_looks_like(head)} ({size} bytes)") from e
        if not has_media():
            raise FormatNeedsFfmpeg(
                f"{source.name} is {kind.name}, which needs PyAV: {INSTALL_MEDIA}; or convert it to WAV or FLAC first"
            ) from e
        from rvc_batch.engine.media import MediaReader

        audio = MediaReader(source, kind)
    if is_cut:  # decoders read what there is as if it were the whole
        audio.close()
        raise containers.truncated(source.name, container)
    if not RATE_RANGE_HZ[0] <= audio.sample_rate <= RATE_RANGE_HZ[1]:
        audio.close()
        raise InputRate(
            f"{source.name} claims {audio.sample_rate} Hz, expected {RATE_RANGE_HZ[0]} to {RATE_RANGE_HZ[1]} Hz; the "
            "header is damaged or this is not audio"
        )
    return audio


class _SoundfileReader:
    """What libsndfile reads."""

    warnings: tuple[str, ...] = ()

    def __init__(self, source: Path) -> None:
        self._file, self._name = sf.SoundFile(source), source.name
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.format, self.comment = self._file.format, self._file.comment
        self.promised = self._file.frames if self._file.frames < 2**62 else 0  # some streams do not say

    def blocks(self) -> Iterator[F32]:
        size, done = max(BLOCK_SAMPLES // self.channels, 1), 0
        while True:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except sf.LibsndfileError as e:
                at = done / self.sample_rate
                raise InputTruncated(
                    f"{self._name} stops decoding after {at:.2f} s ({e.error_string}); copy it again"
                ) from e
            if block.shape[0] == 0:
                return
            done += block.shape[0]
            yield block

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _looks_like(head: bytes) -> str:
    known = next((text for magic, text in _SIGNATURES if head.startswith(magic)), None)
    return known or ("text" if all(byte >= 32 or byte in (9, 10, 13) for byte in head) else "unknown data")


# ---------------------------------------------------------------------------------------------------------------------
# What is made of the channels: [n] of [n, channels].

Pick = Callable[[F32], F32]


def mono(block: F32) -> F32:
    """Return the mean of all channels."""
    mean: F32 = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
    return mean


def left(block: F32) -> F32:
    """Return the first channel."""
    return block[:, 0]


def right(block: F32) -> F32:
    """Return the second channel."""
    return block[:, 1]


def side(block: F32) -> F32:
    """Return half of the difference: what the mean of two channels lacks."""
    return (block[:, 0] - block[:, 1]) / np.float32(2)

"""Audio files in and out, in blocks: decode to mono 16 kHz scratch, encode from float32 scratch.

libsndfile does the codecs. Nothing here holds more than a block, and no header is trusted: lengths come from what was
decoded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf

from rvc_batch.engine.filters import FLOAT32, ScratchSignal, resample_blocks
from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.settings import OUTPUT_FORMATS
from rvc_batch.engine.types import F32, I16, AudioInfo
from rvc_batch.errors import (
    DiskFull,
    FormatNeedsFfmpeg,
    InputEmpty,
    InputNoAudio,
    InputNotAudio,
    InputRate,
    InputTruncated,
    InputUnreadable,
    OutputInvalid,
    SourceGone,
)

BLOCK_SAMPLES = 1 << 17  # of all channels together, while decoding
RATE_RANGE_HZ = (4_000, 768_000)
MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
SFC_SET_ADD_PEAK_CHUNK = 0x1050  # sndfile.h
RIFF_LIMIT_BYTES = 0xFFFF_0000  # a WAV beyond this becomes RF64

# What a file that is not audio starts with, for the sentence in the error.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<!DOCTYPE", "an HTML page"),
    (0, b"<html", "an HTML page"),
)
_FFMPEG_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "an MPEG-4 container (m4a, mp4, mov)"),
    (0, b"\x30\x26\xb2\x75", "a Windows Media file"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file"),
    (0, b"\xff\xf1", "a raw AAC stream"),
    (0, b"\xff\xf9", "a raw AAC stream"),
)


@dataclass
class DecodedSource:
    """The result of the first pass: what the file is, its mono 16 kHz signal on disk, and what had to be mended."""

    info: AudioInfo
    signal: ScratchSignal
    warnings: list[str] = field(default_factory=list)


def decode_to_scratch(source: Path, scratch: Path, min_samples: int) -> DecodedSource:
    """Decode, downmix and resample `source` to mono 16 kHz float32 in the file `scratch`.

    The signal has exactly round(n · 16 000 / rate) samples, padded with silence to `min_samples`. Samples that are not
    finite become 0 and are counted.

    Raises:
        SourceGone, InputUnreadable, InputEmpty, InputNotAudio, FormatNeedsFfmpeg, InputRate, InputNoAudio,
        InputTruncated, DiskFull.
    """
    with _open_for_reading(source) as audio:
        rate, channels, promised, kind = audio.samplerate, audio.channels, audio.frames, audio.format
        if not RATE_RANGE_HZ[0] <= rate <= RATE_RANGE_HZ[1]:
            raise InputRate(
                f"{source.name} claims {rate} Hz, expected {RATE_RANGE_HZ[0]} to {RATE_RANGE_HZ[1]} Hz; the header is "
                "damaged or this is not audio"
            )
        decoder = _Decoder(audio, source.name)
        peak = 0.0
        written = 0
        try:
            with scratch.open("wb") as out:
                for block in resample_blocks(decoder.mono_blocks(), rate, SAMPLE_RATE_16K):
                    wanted = round(decoder.frames * SAMPLE_RATE_16K / rate) - written
                    kept = block[: max(wanted, 0)] if decoder.is_finished else block
                    peak = max(peak, float(np.abs(kept).max(initial=0.0)))
                    out.write(np.ascontiguousarray(kept, FLOAT32).tobytes())
                    written += kept.size
                samples = round(decoder.frames * SAMPLE_RATE_16K / rate)
                if decoder.frames == 0:
                    raise InputNoAudio(f"{source.name} is a valid {kind} file with no samples in it")
                length = max(samples, min_samples)
                out.truncate(length * FLOAT32.itemsize)
        except OSError as e:
            raise disk_error(e, scratch) from e
    warnings = decoder.warnings(promised)
    info = AudioInfo(sample_rate=rate, channels=channels, frames=decoder.frames, peak=peak, format=kind)
    return DecodedSource(info, ScratchSignal(scratch, length, FLOAT32), warnings)


class _Decoder:
    """Reads mono blocks and counts what it saw."""

    def __init__(self, audio: sf.SoundFile, name: str) -> None:
        self._audio, self._name = audio, name
        self.frames = 0
        self.is_finished = False
        self._not_finite = 0
        self._clipped = 0

    def mono_blocks(self) -> Iterator[F32]:
        """Yield the mean of all channels, block by block."""
        size = max(BLOCK_SAMPLES // self._audio.channels, 1)
        while True:
            try:
                block = self._audio.read(size, dtype="float32", always_2d=True)
            except sf.LibsndfileError as e:
                at = self.frames / self._audio.samplerate
                raise InputTruncated(
                    f"{self._name} stops decoding after {at:.2f} s ({e.error_string}); copy it again"
                ) from e
            if block.shape[0] == 0:
                self.is_finished = True
                return
            self.frames += block.shape[0]
            is_finite = np.isfinite(block)
            if not is_finite.all():
                self._not_finite += int(block.size - is_finite.sum())
                block = np.where(is_finite, block, np.float32(0))
            self._clipped += int((np.abs(block) >= 1.0).sum())
            yield block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]

    def warnings(self, promised: int) -> list[str]:
        """Return sentences on what was odd."""
        found = []
        if self._not_finite:
            found.append(f"{self._not_finite} samples were not finite and became silence")
        if 0 < self.frames < promised < 2**62:
            found.append(f"the header promises {promised} frames, the file holds {self.frames}")
        if self._clipped:
            found.append(f"{self._clipped} samples are at or above full scale")
        return found


def _open_for_reading(source: Path) -> sf.SoundFile:
    try:
        size = source.stat().st_size
        with source.open("rb") as f:
            head = f.read(64)
    except FileNotFoundError as e:
        raise SourceGone(f"{source} is not there any more") from e
    except OSError as e:
        raise InputUnreadable(f"{source} cannot be read: {e.strerror}; check its permissions") from e
    if size == 0:
        raise InputEmpty(f"{source.name} has no bytes; copy it again")
    try:
        return sf.SoundFile(source)
    except (sf.LibsndfileError, TypeError) as e:
        looks_like = _looks_like(head, _FFMPEG_SIGNATURES)
        if looks_like:
            raise FormatNeedsFfmpeg(
                f"{source.name} is {looks_like}, which libsndfile cannot decode; convert it to WAV or FLAC first"
            ) from e
        looks_like = _looks_like(head, _SIGNATURES) or ("text" if _is_text(head) else "unknown data")
        raise InputNotAudio(f"{source.name} is not audio: it looks like {looks_like} ({size} bytes)") from e


def _looks_like(head: bytes, signatures: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((text for at, magic, text in signatures if head[at : at + len(magic)] == magic), None)


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in (9, 10, 13) for byte in head)


class FloatScratch:
    """A mono float32 signal that is appended to and read back in blocks; no file stays open.

    Args:
        samples: how many samples of an existing file to keep and go on from.
    """

    def __init__(self, path: Path, samples: int = 0) -> None:
        self._path = path
        self._path.touch()
        os.truncate(path, samples * FLOAT32.itemsize)
        self.samples = samples

    def write(self, wave: F32) -> None:
        """Append samples.

        Raises:
            DiskFull: no space left. OutputInvalid: a sample is not finite.
        """
        is_finite = np.isfinite(wave)
        if not is_finite.all():
            raise OutputInvalid(
                f"{int(wave.size - is_finite.sum())} of {wave.size} rendered samples after sample {self.samples} are "
                "not finite; the voice model or its index is damaged"
            )
        try:
            with self._path.open("ab") as file:
                file.write(np.ascontiguousarray(wave, FLOAT32).tobytes())
        except OSError as e:
            raise disk_error(e, self._path) from e
        self.samples += wave.size

    def blocks(self, size: int = BLOCK_SAMPLES) -> Iterator[F32]:
        """Yield the signal once, in order."""
        for at in range(0, self.samples, size):
            count = min(size, self.samples - at)
            yield np.fromfile(self._path, FLOAT32, count=count, offset=at * FLOAT32.itemsize)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


class BlockWriter:
    """Encodes a mono stream into one file; WAV becomes RF64 when it would not fit."""

    def __init__(self, path: Path, output_format: str, sample_rate: int, samples: int) -> None:
        _, container, subtype = OUTPUT_FORMATS[output_format]
        width = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}.get(subtype, 0)
        if container == "WAV" and samples * width > RIFF_LIMIT_BYTES:
            container = "RF64"
        self._path = path
        try:
            self._file = sf.SoundFile(path, "w", sample_rate, 1, subtype, format=container)
        except sf.LibsndfileError as e:
            raise disk_error(OSError(errno.EIO, e.error_string), path) from e
        # float WAVs get a PEAK chunk with the time of day, the only thing that would differ between equal renderings
        sf._snd.sf_command(self._file._file, SFC_SET_ADD_PEAK_CHUNK, sf._ffi.NULL, 0)

    def write(self, wave: F32 | I16) -> None:
        """Append samples: int16 as they are, float32 in ±1."""
        try:
            self._file.write(wave)
        except sf.LibsndfileError as e:
            raise disk_error(OSError(errno.EIO, e.error_string), self._path) from e

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def output_rate(output_format: str, rate: int) -> int:
    """Return the rate a file of this format has: MP3 knows nine rates, the next above is taken."""
    if output_format == "mp3" and rate not in MP3_RATES_HZ:
        return next((r for r in MP3_RATES_HZ if r > rate), MP3_RATES_HZ[-1])
    return rate


def disk_error(error: OSError, path: Path) -> Exception:
    """Turn a write error into DiskFull when the volume is full, else return it as it is."""
    free = os.statvfs(path.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or free.f_bavail * free.f_frsize < 1 << 20:
        return DiskFull(f"no space left on the volume of {path.parent}; free some, the job goes on by itself")
    return error

"""Audio files in and out, in blocks: decode to mono 16 kHz scratch, encode from float32 scratch.

Nothing here holds more than a block. What opens and decodes a file is in `decoding`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rvc_batch.engine.decoding import BLOCK_SAMPLES, AudioReader, Pick, mono, open_audio
from rvc_batch.engine.filters import FLOAT32, ScratchSignal, resample_blocks
from rvc_batch.engine.media_kinds import INSTALL_MEDIA, has_media
from rvc_batch.engine.network_config import SAMPLE_RATE_16K
from rvc_batch.engine.ogg_serial import fix_serial
from rvc_batch.engine.provenance import Provenance
from rvc_batch.engine.settings import OUTPUT_FORMATS
from rvc_batch.engine.types import F32, I16, AudioInfo
from rvc_batch.errors import DiskFull, ExtraMissing, InputNoAudio, OutputInvalid
from rvc_batch.version import __version__

# The rates a codec knows; the others take any. Opus decodes to any of its rates, and is written at one of them.
KNOWN_RATES_HZ = {
    "mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "opus": (8_000, 12_000, 16_000, 24_000, 48_000),
    "m4a": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
}
SFC_SET_ADD_PEAK_CHUNK = 0x1050  # sndfile.h
RIFF_LIMIT_BYTES = 0xFFFF_0000  # a WAV beyond this becomes RF64


@dataclass
class DecodedSource:
    """The result of the first pass: what the file is, its mono 16 kHz signal on disk, and what had to be mended."""

    info: AudioInfo
    signal: ScratchSignal
    warnings: list[str] = field(default_factory=list)


def decode_to_scratch(
    source: Path, scratch: Path, min_samples: int, *, pick: Pick = mono, rate_out: int = SAMPLE_RATE_16K
) -> DecodedSource:
    """Decode `source`, make one channel of it and resample that to float32 in the file `scratch`.

    The signal has exactly round(n · rate_out / rate) samples, padded with silence to `min_samples`. Samples that are
    not finite become 0 and are counted.

    Args:
        pick: which channel, or the mean of all.

    Raises:
        SourceGone, InputUnreadable, InputEmpty, InputNotAudio, FormatNeedsFfmpeg, InputRate, InputNoAudio,
        InputTruncated, DiskFull.
    """
    with open_audio(source) as audio:
        rate, kind = audio.sample_rate, audio.format
        decoder = _Decoder(audio, pick)
        peak = 0.0
        written = 0
        try:
            with scratch.open("wb") as out:
                for block in resample_blocks(decoder.blocks(), rate, rate_out):
                    wanted = round(decoder.frames * rate_out / rate) - written
                    kept = block[: max(wanted, 0)] if decoder.is_finished else block
                    peak = max(peak, float(np.abs(kept).max(initial=0.0)))
                    out.write(np.ascontiguousarray(kept, FLOAT32).tobytes())
                    written += kept.size
                samples = round(decoder.frames * rate_out / rate)
                if decoder.frames == 0:
                    raise InputNoAudio(f"{source.name} is a valid {kind} file with no samples in it")
                length = max(samples, min_samples)
                out.truncate(length * FLOAT32.itemsize)
        except OSError as e:
            raise disk_error(e, scratch) from e
        warnings = decoder.warnings()
        info = AudioInfo(sample_rate=rate, channels=audio.channels, frames=decoder.frames, peak=peak, format=kind)
    return DecodedSource(info, ScratchSignal(scratch, length, FLOAT32), warnings)


class _Decoder:
    """Reads blocks of one channel and counts what it saw in all of them."""

    def __init__(self, audio: AudioReader, pick: Pick) -> None:
        self._audio, self._pick = audio, pick
        self.frames = 0
        self.is_finished = False
        self._not_finite = 0
        self._clipped = 0

    def blocks(self) -> Iterator[F32]:
        """Yield the channel, block by block."""
        for block in self._audio.blocks():
            self.frames += block.shape[0]
            is_finite = np.isfinite(block)
            if not is_finite.all():
                self._not_finite += int(block.size - is_finite.sum())
                block = np.where(is_finite, block, np.float32(0))
            self._clipped += int((np.abs(block) >= 1.0).sum())
            yield self._pick(block)
        self.is_finished = True

    def warnings(self) -> list[str]:
        """Return sentences on what was odd."""
        found = list(self._audio.warnings)
        if self._not_finite:
            found.append(f"{self._not_finite} samples were not finite and became silence")
        if 0 < self.frames < self._audio.promised:
            found.append(f"the header promises {self._audio.promised} frames, the file holds {self.frames}")
        if self._clipped:
            found.append(f"{self._clipped} samples are at or above full scale")
        return found


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
    """Encodes a stream of `channels` channels into one file; WAV becomes RF64 when it would not fit.

    Tags go in before the first sample, so that nothing is written twice. Equal streams give equal bytes.
    """

    def __init__(
        self,
        path: Path,
        output_format: str,
        sample_rate: int,
        samples: int,
        *,
        channels: int = 1,
        provenance: Provenance | None = None,
    ) -> None:
        """Open the file.

        Raises:
            ExtraMissing: the format needs a package that is not installed. DiskFull: no space left.
        """
        _, container, subtype = OUTPUT_FORMATS[output_format]
        width = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}.get(subtype, 0)
        if container == "WAV" and samples * width * channels > RIFF_LIMIT_BYTES:
            container = "RF64"
        tags = _tags(provenance, is_unicode=output_format != "mp3") if provenance else {}
        self._path, self._is_ogg = path, container == "OGG"
        self._sink: Any
        if container == "MP4":
            check_output_format(output_format)
            from rvc_batch.engine.media import M4aWriter

            self._sink = M4aWriter(path, sample_rate, channels, tags)
            return
        try:
            file = sf.SoundFile(path, "w", sample_rate, channels, subtype, format=container)
        except sf.LibsndfileError as e:
            raise disk_error(OSError(errno.EIO, e.error_string), path) from e
        # float WAVs get a PEAK chunk with the time of day, the only thing that would differ between equal renderings
        sf._snd.sf_command(file._file, SFC_SET_ADD_PEAK_CHUNK, sf._ffi.NULL, 0)
        for name, text in tags.items():
            setattr(file, name, text)
        self._sink = file

    def write(self, wave: F32 | I16) -> None:
        """Append samples, [n] or [n, channels]: int16 as they are, float32 in ±1."""
        try:
            self._sink.write(wave)
        except sf.LibsndfileError as e:
            raise disk_error(OSError(errno.EIO, e.error_string), self._path) from e
        except OSError as e:
            raise disk_error(e, self._path) from e

    def close(self) -> None:
        """Finish the file."""
        try:
            self._sink.close()
            if self._is_ogg:
                fix_serial(self._path)
        except OSError as e:
            raise disk_error(e, self._path) from e


def _tags(provenance: Provenance, *, is_unicode: bool) -> dict[str, str]:
    """Return what the tags say: the record, and for people the name of the source and the voice.

    libsndfile writes MP3 tags as Latin-1 and hands them UTF-8, so there they say what ASCII can.
    """
    shown = {"title": Path(provenance.source.name).stem, "artist": provenance.voice}
    encoding = ("utf-8", "replace") if is_unicode else ("ascii", "replace")
    readable = {name: text.encode(*encoding).decode(encoding[0]) for name, text in shown.items()}
    return {**readable, "software": f"rvc-batch {__version__}", "comment": provenance.comment()}


def check_output_format(output_format: str) -> None:
    """Make sure that a format can be written, before the work.

    Raises:
        ExtraMissing: it needs a package that is not installed.
    """
    if OUTPUT_FORMATS[output_format][1] == "MP4" and not has_media():
        raise ExtraMissing(f"output_format {output_format} needs PyAV: {INSTALL_MEDIA}")


def output_rate(output_format: str, rate: int) -> int:
    """Return the rate a file of this format has: where the codec knows a few rates, the next above is taken."""
    known = KNOWN_RATES_HZ.get(output_format, (rate,))
    return next((r for r in known if r >= rate), known[-1])


def disk_error(error: OSError, path: Path) -> Exception:
    """Turn a write error into DiskFull when the volume is full, else return it as it is."""
    free = os.statvfs(path.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or free.f_bavail * free.f_frsize < 1 << 20:
        return DiskFull(f"no space left on the volume of {path.parent}; free some, the job goes on by itself")
    return error

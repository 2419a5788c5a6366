"""Files that libsndfile does not know, through PyAV (the extra `media`): what FFmpeg decodes, and M4A out.

A file is opened with the demuxer that its first bytes name and with no protocol but `file`: FFmpeg neither guesses a
format nor fetches anything. Of several tracks of audio one is read; pictures are passed over.

Length: what comes out of the decoder, in order. FFmpeg takes the encoder's priming from the start where the container
says how long it is (edit lists of MPEG-4, pre-skip of Opus, delay of Matroska), and the padding from the end of Opus;
that of MPEG-4 is taken here, by the length of its edit list. Raw AAC and AC-3 say neither, AAC in Matroska not the
second: there it stays. Gaps between time stamps are not filled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import av
import numpy as np

from rvc_batch.engine.media_kinds import MediaKind
from rvc_batch.engine.types import F32
from rvc_batch.errors import InputNoAudio, InputNotAudio, InputTruncated

BLOCK_SAMPLES = 1 << 16  # of all channels together
MAX_CHANNELS = 64
AAC_BIT_RATE = 128_000  # of one channel
AAC_FRAME = 1_024
# FFmpeg's integer formats, planar ones without their p: offset and full scale
_SCALES = {"u8": (128.0, 2.0**7), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31), "s64": (0.0, 2.0**63)}


class MediaReader:
    """One track of audio of a file, decoded by FFmpeg. See `decoding.AudioReader`."""

    def __init__(self, source: Path, kind: MediaKind) -> None:
        """Open a file and decode its first frame, which alone tells rate and channels for certain (HE-AAC).

        Raises:
            InputNotAudio: FFmpeg cannot read it. InputNoAudio: no track of audio, or nothing in it.
        """
        self._name = source.name
        with contextlib.ExitStack() as opened:
            try:
                container: Any = opened.enter_context(
                    av.open(
                        f"file:{source.absolute()}",
                        format=kind.demuxer,
                        options={"protocol_whitelist": "file"},
                        metadata_errors="replace",
                    )
                )
                stream = container.streams.best("audio")
                if stream is None:
                    raise InputNoAudio(f"{source.name} is {kind.name} without a track of audio; drop another file")
                _check_channels(source.name, stream.codec_context.layout.nb_channels)  # before there is a frame of them
                self._frames: Iterator[Any] = container.decode(stream)
                self._first = next(self._frames, None)
            except (av.FFmpegError, ValueError, IndexError) as e:
                raise InputNotAudio(f"{source.name} begins as {kind.name} but cannot be decoded ({_said(e)})") from e
            if self._first is None:
                raise InputNoAudio(f"{source.name} is a valid {kind.name} file with no samples in it")
            self.sample_rate, self.channels = self._first.sample_rate, self._first.layout.nb_channels
            _check_channels(source.name, self.channels)
            self._opened = opened.pop_all()
        self.format = f"{container.format.name.split(',')[0]} {stream.codec_context.name}".upper()
        tags = {name.lower(): text for name, text in {**container.metadata, **stream.metadata}.items()}
        self.comment = tags.get("comment", "")
        is_said = kind.demuxer == "mov" and stream.duration and stream.time_base  # elsewhere it is an estimate
        self.promised = round(stream.duration * stream.time_base * self.sample_rate) if is_said else 0
        tracks = len(container.streams.audio)
        self.warnings: tuple[str, ...] = (
            (f"{tracks} tracks of audio, number {stream.index} is used",) if tracks > 1 else ()
        )

    def blocks(self) -> Iterator[F32]:
        """Yield the audio; see `decoding.AudioReader`. A frame of FFmpeg is too small to be worth a round."""
        waiting = list[F32]()
        for piece in self._pieces():
            waiting.append(piece)
            if sum(p.size for p in waiting) >= BLOCK_SAMPLES:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)

    def _pieces(self) -> Iterator[F32]:
        """Yield the audio frame by frame, the last one without the encoder's padding."""
        done, held = 0, self._samples(self._first)
        for frame in self._decoded():
            done += held.shape[0]
            yield held
            held = self._samples(frame)
        excess = done + held.shape[0] - self.promised
        is_padded = self.promised > 0 and 0 < excess < held.shape[0]
        yield held[: held.shape[0] - excess] if is_padded else held

    def _decoded(self) -> Iterator[Any]:
        seconds = 0.0
        while True:
            try:
                frame = next(self._frames, None)
            except (av.FFmpegError, ValueError) as e:
                raise InputTruncated(
                    f"{self._name} stops decoding after {seconds:.2f} s ({_said(e)}); copy it again"
                ) from e
            if frame is None:
                return
            if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.channels):
                raise InputNotAudio(
                    f"{self._name} changes to {frame.sample_rate} Hz and {frame.layout.nb_channels} channels after "
                    f"{seconds:.2f} s; convert it to WAV first"
                )
            seconds = (frame.time or seconds) + frame.samples / frame.sample_rate
            yield frame

    def _samples(self, frame: Any) -> F32:
        """Return a frame as [n, channels], ±1."""
        name = frame.format.name
        offset, scale = _SCALES.get(name.removesuffix("p"), (0.0, 1.0))  # the others are floats
        wave = frame.to_ndarray()
        wave = wave.T if name.endswith("p") else wave.reshape(-1, self.channels)
        scaled: F32 = ((wave - offset) / scale).astype(np.float32)
        return scaled

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class M4aWriter:
    """Encodes a stream as AAC into an M4A file: exact in length by its edit list, and the same bytes each time."""

    def __init__(self, path: Path, sample_rate: int, channels: int, tags: dict[str, str]) -> None:
        # "bitexact" leaves out the versions; the time scale makes the edit list exact, whose default is 1 ms
        options = {"fflags": "+bitexact", "movie_timescale": str(sample_rate)}
        self._layout = "mono" if channels == 1 else "stereo"
        self._opened = contextlib.ExitStack()
        file = self._opened.enter_context(path.open("w+b"))
        self._container = self._opened.enter_context(av.open(file, "w", format="ipod", options=options))
        self._container.metadata.update(tags)
        self._stream = self._container.add_stream(
            "aac", rate=sample_rate, layout=self._layout, options={"flags": "+bitexact"}
        )
        self._stream.bit_rate = AAC_BIT_RATE * channels
        self._rest = np.zeros((0, channels), np.float32)
        self._done, self._rate = 0, sample_rate

    def write(self, wave: F32) -> None:
        """Append samples, [n] or [n, channels]."""
        wave = np.concatenate([self._rest, wave.reshape(-1, self._rest.shape[1])])
        whole = wave.shape[0] // AAC_FRAME * AAC_FRAME
        for at in range(0, whole, AAC_FRAME):
            self._encode(wave[at : at + AAC_FRAME])
        self._rest = wave[whole:]

    def close(self) -> None:
        """Encode what is left and finish the file."""
        with self._opened:
            if self._rest.size:
                self._encode(self._rest)
            self._container.mux(self._stream.encode(None))

    def _encode(self, wave: F32) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._done
        self._done += wave.shape[0]
        self._container.mux(self._stream.encode(frame))


def _check_channels(name: str, channels: int) -> None:
    if channels > MAX_CHANNELS:
        raise InputNotAudio(
            f"{name} claims {channels} channels, expected {MAX_CHANNELS} at most; the header is damaged"
        )


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

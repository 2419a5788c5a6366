"""Files in formats that libsndfile does not know, made with PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

# suffix → container, codec, sample format
MEDIA = {
    "m4a": ("ipod", "aac", "fltp"),
    "alac.m4a": ("ipod", "alac", "s16p"),
    "mp4": ("mp4", "aac", "fltp"),
    "mov": ("mov", "pcm_s24le", "s32"),
    "mkv": ("matroska", "aac", "fltp"),
    "mka": ("matroska", "flac", "s16"),
    "webm": ("webm", "libopus", "flt"),
    "wma": ("asf", "wmav2", "fltp"),
    "aac": ("adts", "aac", "fltp"),
    "ac3": ("ac3", "ac3", "fltp"),
    "wv": ("wv", "wavpack", "s16p"),
    "avi": ("avi", "libmp3lame", "fltp"),
}


def write_media(path: Path, kind: str, *tracks: np.ndarray, rate: int = 48_000, has_video: bool = False) -> Path:
    """Write float waves [n] or [n, 2] in ±1 as the tracks of one file, with a picture before them if asked for."""
    container, codec, sample_format = MEDIA[kind]
    with av.open(str(path), "w", format=container) as out:
        video = _add_video(out) if has_video else None
        streams = [_add_audio(out, codec, rate, wave, sample_format) for wave in tracks]
        if video is not None:
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            out.mux(video.encode(picture))
            out.mux(video.encode(None))
        for stream, wave in zip(streams, tracks, strict=True):
            for frame in _frames(stream, wave, rate, sample_format):
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def _add_video(out: Any) -> Any:
    stream = out.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuv420p"
    return stream


def _add_audio(out: Any, codec: str, rate: int, wave: np.ndarray, sample_format: str) -> Any:
    stream = out.add_stream(codec, rate=rate, layout="mono" if wave.ndim == 1 else "stereo")
    stream.bit_rate = 128_000
    stream.format = sample_format
    return stream


def _frames(stream: Any, wave: np.ndarray, rate: int, sample_format: str) -> Any:
    stream.codec_context.open(strict=False)
    size = stream.codec_context.frame_size or 4_096
    planes = wave.reshape(len(wave), -1).T
    full = {"s16": 2**15 - 1, "s32": 2**31 - 1, "flt": 1}[sample_format.removesuffix("p")]
    dtype = {"s16": np.int16, "s32": np.int32, "flt": np.float32}[sample_format.removesuffix("p")]
    for at in range(0, len(wave), size):
        block = (planes[:, at : at + size] * full).astype(dtype)
        if not sample_format.endswith("p"):
            block = block.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block), format=sample_format, layout="mono" if wave.ndim == 1 else "stereo"
        )
        frame.sample_rate, frame.pts = rate, at
        yield frame

"""The completeness check, on every format that soundfile writes: whole, cut, and grown later."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rvc_batch.engine.containers import Completeness, Container, inspect

RATE = 22_050
SECONDS = 2.0


def noise(seconds: float = SECONDS, channels: int = 1) -> np.ndarray:
    return 0.3 * np.random.default_rng(3).standard_normal((int(seconds * RATE), channels)).clip(-3, 3) / 3


def encoded(kind: str, subtype: str, channels: int = 1, seconds: float = SECONDS) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds, channels), RATE, format=kind, subtype=subtype)
    return file.getvalue()


def judged(data: bytes) -> Container:
    return inspect(io.BytesIO(data), len(data))


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_whole_file_is_whole_and_its_length_is_estimated(kind: str, subtype: str) -> None:
    if subtype == "OPUS":
        file = io.BytesIO()
        soundfile.write(file, np.repeat(noise(), 2)[: 48_000 * 2], 48_000, format=kind, subtype=subtype)
        data, seconds = file.getvalue(), len(np.repeat(noise(), 2)[: 48_000 * 2]) / 48_000
    else:
        data, seconds = encoded(kind, subtype), SECONDS
    found = judged(data)
    assert found.completeness is Completeness.WHOLE
    assert found.seconds == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
@pytest.mark.parametrize("part", [0.1, 1 / 3, 0.5, 0.9, 0.999])
def test_cut_file_is_short_until_it_has_grown(kind: str, subtype: str, part: float) -> None:
    if subtype == "OPUS":
        file = io.BytesIO()
        soundfile.write(file, noise(), 48_000, format=kind, subtype=subtype)
        data = file.getvalue()
    else:
        data = encoded(kind, subtype)
    cut = judged(data[: int(len(data) * part)])
    assert cut.completeness is Completeness.SHORT
    assert judged(data).completeness is Completeness.WHOLE


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_every_cut_inside_the_header_is_short_or_unknown(kind: str, subtype: str) -> None:
    data = encoded(kind, subtype) if subtype != "OPUS" else encoded("OGG", "VORBIS")
    for length in range(1, 200):
        assert judged(data[:length]).completeness is not Completeness.WHOLE, length


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_one_missing_byte_is_noticed_in_streams_of_frames(kind: str, subtype: str) -> None:
    assert judged(encoded(kind, subtype)[:-1]).completeness is Completeness.SHORT


@pytest.mark.parametrize(
    "tag",
    [
        b"TAG" + b"title".ljust(125),
        b"APETAGEX" + struct.pack("<IIII8x", 2000, 52, 1, 1 << 31) + b"x" * 20  # header, item
        + b"APETAGEX" + struct.pack("<IIII8x", 2000, 52, 1, 1 << 31),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("WAV", "PCM_16")])
def test_tags_behind_the_audio_do_not_make_it_short(kind: str, subtype: str, tag: bytes) -> None:
    assert judged(encoded(kind, subtype) + tag).completeness is Completeness.WHOLE


@pytest.mark.parametrize("kind", ["FLAC", "MP3"])
def test_tag_before_the_audio_is_skipped(kind: str) -> None:
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    data = encoded(kind, {"FLAC": "PCM_16", "MP3": "MPEG_LAYER_III"}[kind])
    assert judged(tag + data).completeness is Completeness.WHOLE
    assert judged(tag + data[:-100]).completeness is Completeness.SHORT
    assert judged(tag[:100]).completeness is Completeness.SHORT


def test_mp3_of_constant_bit_rate_without_a_count_is_judged_by_its_last_frame() -> None:
    frame = bytes([0xFF, 0xFB, 0x90, 0xC4]) + bytes(range(1, 251)) + bytes(417 - 254)  # 128 kbit/s, 44.1 kHz
    stream = frame * 200
    assert judged(stream).completeness is Completeness.OPEN_ENDED
    assert judged(stream).seconds == pytest.approx(200 * 1152 / 44_100, rel=0.01)
    assert judged(stream[:-5]).completeness is Completeness.SHORT
    assert judged(stream[:-416]).completeness is Completeness.SHORT
    assert judged(stream + b"TAG" + bytes(125)).completeness is Completeness.OPEN_ENDED


def wav_with_data_size(size: int) -> bytes:
    data = bytearray(encoded("WAV", "PCM_16"))
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    return bytes(data)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFEFFE])
def test_wav_of_a_writer_that_did_not_know_the_length_is_open_ended(size: int) -> None:
    found = judged(wav_with_data_size(size))
    assert found.completeness is Completeness.OPEN_ENDED
    assert found.seconds == pytest.approx(SECONDS, rel=0.01)


def test_wav_that_understates_its_data_is_whole() -> None:
    assert judged(wav_with_data_size(1000)).completeness is Completeness.WHOLE


def test_wav_with_trailing_chunks_and_junk_is_whole() -> None:
    data = encoded("WAV", "PCM_16")
    assert judged(data + b"LIST" + struct.pack("<I", 4) + b"INFO" + b"junk" * 1000).completeness is Completeness.WHOLE


def test_wav_with_leading_chunks_finds_its_data() -> None:
    data = encoded("WAV", "PCM_16")
    at = data.index(b"fmt ")
    bext = b"bext" + struct.pack("<I", 603) + bytes(604)  # odd length, padded
    patched = data[:at] + bext + data[at:]
    assert judged(patched).completeness is Completeness.WHOLE
    assert judged(patched[: len(patched) // 2]).completeness is Completeness.SHORT


def test_header_without_samples_is_whole() -> None:
    assert judged(encoded("WAV", "PCM_16", seconds=0)).completeness is Completeness.WHOLE


def test_flac_of_unknown_length_is_open_ended() -> None:
    data = bytearray(encoded("FLAC", "PCM_16"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert judged(bytes(data)).completeness is Completeness.OPEN_ENDED


def test_flac_of_large_frames_is_found_whole() -> None:
    assert judged(encoded("FLAC", "PCM_24", channels=8, seconds=20)).completeness is Completeness.WHOLE


def test_text_and_nothing_are_open_ended() -> None:
    assert judged(b"this is a text named .wav\n" * 100) == Container(
        kind="unknown", completeness=Completeness.OPEN_ENDED, present=2600
    )
    assert judged(b"").completeness is Completeness.OPEN_ENDED


def test_shortfall_names_both_numbers() -> None:
    data = encoded("WAV", "PCM_16")
    short = judged(data[:20_000])
    assert str(len(data)) in short.shortfall
    assert "20000" in short.shortfall


def test_preallocated_copy_has_a_zero_tail() -> None:
    data = encoded("WAV", "PCM_16", seconds=10)
    assert not judged(data).zero_tail
    half_copied = judged(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert half_copied.zero_tail
    assert half_copied.completeness is Completeness.WHOLE


def test_crafted_chunk_list_ends_in_bounded_time() -> None:
    data = b"RIFF" + struct.pack("<I", 0x7FFFFFF0) + b"WAVE" + (b"junk" + struct.pack("<I", 0)) * 200_000
    assert judged(data).completeness is Completeness.SHORT


SMALL = {kind: encoded(kind, subtype, seconds=0.05) for kind, subtype in dict(FORMATS).items() if kind != "OGG"}


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(SMALL)),
    patches=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=8),
    length=st.integers(0, 4000),
)
def test_damaged_headers_never_raise(kind: str, patches: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SMALL[kind])
    for at, value in patches:
        data[at] = value
    assert judged(bytes(data[:length])).present == min(length, len(data))

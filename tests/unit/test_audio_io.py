"""Decoding every format, and the sentences for what cannot be decoded."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import audio_io
from rvc_batch.engine.audio_io import BlockWriter, FloatScratch, decode_to_scratch, output_rate
from rvc_batch.engine.decoding import open_audio
from rvc_batch.engine.provenance import Provenance
from rvc_batch.errors import (
    InputEmpty,
    InputNoAudio,
    InputNotAudio,
    InputRate,
    InputTruncated,
    OutputInvalid,
    SourceGone,
)
from tests.unit.test_provenance import MADE

FORMATS = [
    ("a.wav", "WAV", "PCM_U8"),
    ("a.wav", "WAV", "PCM_16"),
    ("a.wav", "WAV", "PCM_24"),
    ("a.wav", "WAV", "PCM_32"),
    ("a.wav", "WAV", "FLOAT"),
    ("a.wav", "WAV", "DOUBLE"),
    ("a.wav", "WAV", "ULAW"),
    ("a.flac", "FLAC", "PCM_16"),
    ("a.mp3", "MP3", "MPEG_LAYER_III"),
    ("a.ogg", "OGG", "VORBIS"),
    ("a.opus", "OGG", "OPUS"),
    ("a.aiff", "AIFF", "PCM_16"),
    ("a.caf", "CAF", "PCM_16"),
    ("a.w64", "W64", "PCM_16"),
    ("a.wav", "RF64", "PCM_16"),
]


def tone(rate: int, seconds: float = 0.5, channels: int = 1) -> np.ndarray:
    t = np.arange(int(rate * seconds)) / rate
    wave = 0.4 * np.sin(2 * np.pi * 440 * t)
    return np.repeat(wave[:, None], channels, axis=1) if channels > 1 else wave


@pytest.mark.parametrize(("name", "container", "subtype"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_decodes_to_the_same_tone(
    tmp_path: Path, name: str, container: str, subtype: str, channels: int
) -> None:
    rate = 48_000
    sf.write(tmp_path / name, tone(rate, channels=channels), rate, subtype, format=container)
    decoded = decode_to_scratch(tmp_path / name, tmp_path / "x.f64", 320)
    assert decoded.info.channels == channels
    assert decoded.signal.samples == round(decoded.info.frames / 3)
    wave = decoded.signal.read(1_000, 6_000)
    expected = tone(16_000)[1_000:6_000]
    # lossy codecs and 8 bits: the tone must be there in level and pitch, samples may differ
    spectrum, wanted = np.abs(np.fft.rfft(wave)), np.abs(np.fft.rfft(expected))
    assert spectrum.argmax() == wanted.argmax()
    assert spectrum.max() == pytest.approx(wanted.max(), rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("frames", [1, 7, 480, 12_345])
def test_the_length_at_16_khz_is_exact(tmp_path: Path, rate: int, frames: int) -> None:
    sf.write(tmp_path / "a.wav", np.full(frames, 0.25), rate)
    decoded = decode_to_scratch(tmp_path / "a.wav", tmp_path / "x.f64", 1)
    assert decoded.signal.samples == max(round(frames * 16_000 / rate), 1)
    assert decoded.info.frames == frames


def test_stereo_is_the_mean_of_both_channels(tmp_path: Path) -> None:
    wave = np.stack([np.full(4_000, 0.5), np.full(4_000, -0.25)], axis=1)
    sf.write(tmp_path / "a.wav", wave, 16_000, "FLOAT")
    decoded = decode_to_scratch(tmp_path / "a.wav", tmp_path / "x.f64", 1)
    np.testing.assert_allclose(decoded.signal.read(0, 4_000), 0.125)


def test_short_input_is_padded_with_silence(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.full(100, 0.5), 16_000, "FLOAT")
    decoded = decode_to_scratch(tmp_path / "a.wav", tmp_path / "x.f64", 320)
    assert decoded.signal.samples == 320
    assert not decoded.signal.read(100, 320).any()


def test_samples_that_are_not_finite_become_silence_and_are_counted(tmp_path: Path) -> None:
    wave = np.full(1_000, 0.5, np.float32)
    wave[[3, 4, 5]] = [np.nan, np.inf, -np.inf]
    sf.write(tmp_path / "a.wav", wave, 16_000, "FLOAT")
    decoded = decode_to_scratch(tmp_path / "a.wav", tmp_path / "x.f64", 1)
    np.testing.assert_array_equal(decoded.signal.read(2, 7), [0.5, 0, 0, 0, 0.5])
    assert decoded.warnings == ["3 samples were not finite and became silence"]


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (b"", InputEmpty, "no bytes"),
        (b"hello, this is a text file\n" * 10, InputNotAudio, "looks like text"),
        (b"PK\x03\x04" + bytes(100), InputNotAudio, "a zip archive"),
        (b"<!DOCTYPE html><html>log in</html>" * 3, InputNotAudio, "an HTML page"),
        (bytes(range(1, 30)) + bytes(1000), InputNotAudio, "unknown data"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(100), InputNotAudio, "begins as MPEG-4 .* but cannot be decoded"),
    ],
)
def test_what_is_not_audio_is_named(tmp_path: Path, content: bytes, error: type[Exception], sentence: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(error, match=sentence):
        decode_to_scratch(tmp_path / "a.wav", tmp_path / "x.f64", 1)


def test_header_only_absurd_rate_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(InputNoAudio, match="no samples"):
        decode_to_scratch(tmp_path / "empty.wav", tmp_path / "x.f64", 1)
    sf.write(tmp_path / "rate.wav", np.zeros(100), 16_000)
    patched = bytearray((tmp_path / "rate.wav").read_bytes())
    patched[24:28] = (2_000_000_000).to_bytes(4, "little")
    (tmp_path / "rate.wav").write_bytes(patched)
    with pytest.raises(InputRate, match="2000000000 Hz"):
        decode_to_scratch(tmp_path / "rate.wav", tmp_path / "x.f64", 1)
    with pytest.raises(SourceGone):
        decode_to_scratch(tmp_path / "nothing.wav", tmp_path / "x.f64", 1)
    sf.write(tmp_path / "holed.flac", np.random.default_rng(0).standard_normal(48_000) * 0.1, 16_000)
    holed = bytearray((tmp_path / "holed.flac").read_bytes())
    holed[len(holed) // 3 : -20_000] = bytes(len(holed) - 20_000 - len(holed) // 3)
    (tmp_path / "holed.flac").write_bytes(holed)
    with pytest.raises(InputTruncated, match="stops decoding after"):
        decode_to_scratch(tmp_path / "holed.flac", tmp_path / "x.f64", 1)


@pytest.mark.parametrize(("name", "container", "subtype"), FORMATS)
def test_half_a_file_is_never_taken_for_the_whole(tmp_path: Path, name: str, container: str, subtype: str) -> None:
    sf.write(tmp_path / name, tone(48_000, seconds=2), 48_000, subtype, format=container)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputTruncated, match=f"^{name} is not complete: .*; copy it again$"):
        open_audio(tmp_path / name)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", tone(16_000), 16_000, format="FLAC")
    assert decode_to_scratch(tmp_path / "a.wav", tmp_path / "x.f64", 1).info.format == "FLAC"


def test_float_scratch_returns_what_was_appended_and_refuses_nan(tmp_path: Path) -> None:
    scratch = FloatScratch(tmp_path / "s.f32")
    wave = np.arange(1_000, dtype=np.float32)
    scratch.write(wave[:400])
    scratch.write(wave[400:])
    np.testing.assert_array_equal(np.concatenate(list(scratch.blocks(333))), wave)
    with pytest.raises(OutputInvalid, match="1 of 2 rendered samples after sample 1000"):
        scratch.write(np.array([1, np.nan], np.float32))


def test_a_wav_that_would_not_fit_becomes_rf64(tmp_path: Path) -> None:
    writer = BlockWriter(tmp_path / "big.wav", "wav", 40_000, samples=3 << 30)
    writer.write(np.zeros(10, np.int16))
    writer.close()
    assert sf.info(tmp_path / "big.wav").format == "RF64"


def test_rf64_holds_the_same_audio_and_the_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_io, "RIFF_LIMIT_BYTES", 1_000)
    wave = tone(16_000, channels=2).astype(np.float32)
    for name, samples in (("short.wav", 100), ("long.wav", len(wave))):
        writer = BlockWriter(tmp_path / name, "wav32f", 16_000, samples, channels=2, provenance=MADE)
        writer.write(wave[:samples])
        writer.close()
    assert sf.info(tmp_path / "short.wav").format == "WAV"
    with sf.SoundFile(tmp_path / "long.wav") as file:
        assert file.format == "RF64"
        assert Provenance.read(file.comment, "x") == MADE
        np.testing.assert_array_equal(file.read(dtype="float32"), wave)


def test_a_codec_takes_the_next_rate_it_knows() -> None:
    assert output_rate("mp3", 40_000) == 44_100
    assert output_rate("mp3", 48_000) == 48_000
    assert output_rate("flac", 40_000) == 40_000
    assert output_rate("opus", 32_000) == output_rate("opus", 192_000) == 48_000
    assert output_rate("m4a", 40_000) == 44_100

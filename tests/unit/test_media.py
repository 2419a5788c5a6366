"""What only PyAV can decode and encode: the audio, its exact length, and hostile files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import decoding, media
from rvc_batch.engine.audio_io import BlockWriter, decode_to_scratch
from rvc_batch.engine.containers import Completeness, inspect
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.decoding import open_audio
from rvc_batch.engine.media_kinds import has_media
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import ExtraMissing, FormatNeedsFfmpeg, InputError, InputNoAudio, InputNotAudio
from tests.engine_fakes import NumpyBackend, fake_voice
from tests.media_files import MEDIA, write_media

RATE, SAMPLES = 48_000, 50_001
# what the container does not say stays: padding of the last frame, in raw streams also priming; WMA loses its end
EXACT = {"alac.m4a", "mov", "mka", "webm", "wv"}
TO_A_MILLISECOND = {"m4a", "mp4"}  # FFmpeg's muxer rounds the edit list, unless it is told not to


def tone(samples: int = SAMPLES, rate: int = RATE) -> np.ndarray:
    rise = np.minimum(np.arange(samples) / 500, 1)  # codecs make an echo before a sudden start
    return 0.4 * rise * rise[::-1] * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)


def decoded(path: Path) -> np.ndarray:
    with open_audio(path) as audio:
        blocks = list(audio.blocks())
        assert (audio.sample_rate, audio.channels) == (RATE, blocks[0].shape[1])
    return np.concatenate(blocks)


@pytest.mark.parametrize("kind", MEDIA)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_container_decodes_to_the_same_audio(tmp_path: Path, kind: str, channels: int) -> None:
    wave = tone() if channels == 1 else tone()[:, None] * [1.0, -0.5]
    found = decoded(write_media(tmp_path / f"a.{kind}", kind, wave))
    expected = wave.reshape(SAMPLES, channels)
    for ours, theirs in zip(found[10_000:34_000].T, expected[10_000:34_000].T, strict=True):  # lossy, some of it late
        spectrum, wanted = np.abs(np.fft.rfft(ours)), np.abs(np.fft.rfft(theirs))
        assert spectrum.argmax() == wanted.argmax()
        assert spectrum.max() == pytest.approx(wanted.max(), rel=0.1)
    if kind in EXACT | TO_A_MILLISECOND:
        assert 0 <= len(found) - SAMPLES <= (48 if kind in TO_A_MILLISECOND else 0)
    if kind in EXACT - {"webm"}:
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_video_is_passed_over_and_one_track_is_chosen(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", "mp4", tone(), tone() / 2, has_video=True)
    result = decode_to_scratch(path, tmp_path / "x.f32", 1)
    assert result.info.format == "MOV AAC"
    assert result.warnings == ["2 tracks of audio, number 1 is used"]
    silent = write_media(tmp_path / "b.mp4", "mp4", has_video=True)
    with pytest.raises(InputNoAudio, match=r"b\.mp4 is MPEG-4 .* without a track of audio"):
        open_audio(silent)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("samples", [1, 1_023, 1_024, 1_025, 30_000])
def test_m4a_out_is_exact_in_length_and_the_same_bytes(tmp_path: Path, rate: int, samples: int) -> None:
    wave = tone(samples, rate).astype(np.float32)
    for name in ("a.m4a", "b.m4a"):
        writer = BlockWriter(tmp_path / name, "m4a", rate, samples)
        for at in range(0, samples, 777):
            writer.write(wave[at : at + 777])
        writer.close()
    with open_audio(tmp_path / "a.m4a") as audio:
        found = np.concatenate(list(audio.blocks()))
        assert (audio.sample_rate, found.shape, audio.promised) == (rate, (samples, 1), samples)
    if samples > 10_000:
        np.testing.assert_allclose(found[2_000:-2_000, 0], wave[2_000:-2_000], atol=0.02)
    assert (tmp_path / "a.m4a").read_bytes() == (tmp_path / "b.m4a").read_bytes()


@pytest.mark.parametrize("kind", ["m4a", "mkv", "wma", "avi"])
def test_damaged_files_are_refused_in_a_sentence_or_decoded(tmp_path: Path, kind: str) -> None:
    whole = write_media(tmp_path / "a", kind, tone(9_000)).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(40):
        data = bytearray(whole)
        for at in rng.integers(12, len(data), 3):  # what it begins as stays
            data[at] = rng.integers(256)
        path = tmp_path / "b"
        path.write_bytes(data[: rng.integers(100, len(data))] if rng.random() < 0.5 else data)
        try:
            with open_audio(path) as audio:
                samples = sum(len(block) for block in audio.blocks())
            outcomes.add("decoded")
            assert samples < 100_000
        except InputError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_a_file_is_opened_as_what_it_begins_as_and_never_fetches_another(tmp_path: Path) -> None:
    sf.write(tmp_path / "secret.wav", tone(), RATE)
    lists = {
        "a.m4a": f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        "b.m4a": f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n",
        "c.m4a": f"\0\0\0\x10ftypM4A \nfile {tmp_path}/secret.wav",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputNotAudio, match=name.replace(".", r"\.")):
            open_audio(tmp_path / name)


def test_absurd_channels_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.m4a", "m4a", tone()[:, None] * [1, 1])
    monkeypatch.setattr(media, "MAX_CHANNELS", 1)
    original = media.av.open

    class Undecoded:
        """A container of which nobody asks for a frame."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.streams = original(*arguments, **options).streams

        def __enter__(self) -> Undecoded:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(media.av, "open", Undecoded)
    with pytest.raises(InputNotAudio, match=r"a\.m4a claims 2 channels, expected 1 at most"):
        open_audio(path)


def test_without_pyav_both_ways_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_media(), "the dev extra brings it"
    path = write_media(tmp_path / "a.m4a", "m4a", tone())
    monkeypatch.setattr(decoding, "has_media", lambda: False)
    with pytest.raises(FormatNeedsFfmpeg, match=r"a\.m4a is MPEG-4 .* which needs PyAV: pip install av"):
        open_audio(path)
    monkeypatch.setattr("rvc_batch.engine.audio_io.has_media", lambda: False)
    sf.write(tmp_path / "a.wav", tone(), RATE)
    converter = Converter(NumpyBackend(), scratch=tmp_path / "scratch")  # type: ignore[arg-type]
    settings = ConversionSettings(output_format="m4a")
    with pytest.raises(ExtraMissing, match="output_format m4a needs PyAV: pip install av"):
        converter.convert(tmp_path / "a.wav", tmp_path / "out", voice=fake_voice(), settings=settings)
    assert not (tmp_path / "scratch").exists(), "refused before any work"


@pytest.mark.parametrize("kind", ["m4a", "mov", "mkv", "wma", "avi"])
def test_cut_media_files_are_short_until_they_have_grown(tmp_path: Path, kind: str) -> None:
    data = write_media(tmp_path / "a", kind, tone()).read_bytes()

    def state(length: int) -> Completeness:
        found = inspect(io.BytesIO(data[:length]), length)
        assert found.needs_media
        return found.completeness

    assert state(len(data)) is Completeness.WHOLE
    before_the_index = [data.index(b"moov") - 4] if b"moov" in data else []  # all boxes whole, the last one to come
    for length in (16, 40, 200, len(data) // 3, len(data) // 2, len(data) - 1, *before_the_index):
        assert state(length) is Completeness.SHORT, length


def test_streams_and_live_recordings_promise_nothing(tmp_path: Path) -> None:
    for kind in ("aac", "ac3", "wv"):
        data = write_media(tmp_path / "a", kind, tone()).read_bytes()
        assert inspect(io.BytesIO(data), len(data)).completeness is Completeness.OPEN_ENDED
    mkv = write_media(tmp_path / "a", "mkv", tone()).read_bytes()
    at = mkv.index(b"\x18\x53\x80\x67") + 4
    live = mkv[:at] + b"\x01" + b"\xff" * 7 + mkv[at + 8 :]
    assert inspect(io.BytesIO(live), len(live)).completeness is Completeness.OPEN_ENDED
    mp4 = write_media(tmp_path / "b", "m4a", tone()).read_bytes()
    assert inspect(io.BytesIO(mp4 + b"\0" * 20), len(mp4) + 20).completeness is Completeness.OPEN_ENDED

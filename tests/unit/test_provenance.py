"""Every result says in its tags what it was made from, and the same rendering is the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import provenance as provenance_module
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.decoding import open_audio
from rvc_batch.engine.precision import Precision
from rvc_batch.engine.provenance import COMMENT_LIMIT, Provenance, Source, digest
from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.engine.tiling import WorkSizes
from rvc_batch.errors import CannotRenderAgain, SourceGone, TagsMissing
from rvc_batch.version import __version__
from tests.engine_fakes import NumpyBackend, fake_voice
from tests.unit.test_retrieval import write_index

MADE = Provenance(
    voice="änna",
    voice_sha256="1" * 64,
    index_sha256="2" * 64,
    networks_sha256="3" * 64,
    pitch_sha256="",
    f0_sha256="",
    source=Source(name="söng 你好.wav", size=7, sha256="4" * 64),
    settings=ConversionSettings(transpose=-3.0, seed=2**63 - 1, output_format="flac24"),
    backend="mlx",
    precision=Precision("float16", 8),
    sizes=WorkSizes(tile_frames=37),
)


def render(folder: Path, output_format: str, *, name: str = "söng.wav") -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    source, target = folder / name, folder / f"out.{output_format}"
    sf.write(source, 0.2 * rng.standard_normal(16_000).clip(-3, 3), 16_000, format="WAV")
    index = write_index(folder / "a.index", rng.standard_normal((50, 8)).astype(np.float32))
    settings = ConversionSettings(output_format=output_format, seed=5)
    converter = Converter(NumpyBackend(), scratch=folder / "scratch")  # type: ignore[arg-type]
    voice = replace(fake_voice(index=index), name="änna")
    converter.convert(source, target, voice=voice, settings=settings)
    return target


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_every_format_carries_the_record_and_equal_renderings_are_equal_bytes(
    tmp_path: Path, output_format: str
) -> None:
    target = render(tmp_path / "a", output_format)
    with open_audio(target) as audio:
        made = Provenance.read(audio.comment, "x")
        assert sum(block.shape[0] for block in audio.blocks()) == audio.sample_rate
    assert made.source == Source.of(tmp_path / "a" / "söng.wav")
    assert made.settings == ConversionSettings(output_format=output_format, seed=5)
    assert (made.voice, made.voice_sha256, made.backend) == ("änna", "0" * 64, "numpy")
    assert made.index_sha256 == digest(tmp_path / "a" / "a.index")
    assert json.loads(made.text())["rvc-batch"] == __version__
    assert render(tmp_path / "b", output_format).read_bytes() == target.read_bytes()


def test_people_can_read_voice_and_name_in_any_player(tmp_path: Path) -> None:
    for output_format, shown in (("wav", ("söng", "änna")), ("mp3", ("s?ng", "?nna"))):
        with sf.SoundFile(render(tmp_path, output_format)) as file:
            assert (file.title, file.artist) == shown
            assert "rvc-batch" in file.software or output_format == "mp3"  # which names LAME there


def test_the_record_comes_back_as_it_was() -> None:
    assert MADE.comment().isascii()
    assert Provenance.read(MADE.comment(), "x") == MADE


@pytest.mark.parametrize("letter", ["a", "你", "\udcff"])
def test_a_long_name_loses_its_beginning_before_a_reader_drops_the_record(tmp_path: Path, letter: str) -> None:
    made = replace(MADE, source=replace(MADE.source, name=letter * 250 + ".wav"))
    comment = made.comment()
    assert COMMENT_LIMIT - 12 < len(comment) <= COMMENT_LIMIT or comment == made.text()
    assert Provenance.read(comment, "x").source.name.endswith(letter + ".wav")
    with sf.SoundFile(tmp_path / "a.wav", "w", 8_000, 1) as file:
        file.comment = comment.ljust(COMMENT_LIMIT)
        file.write(np.zeros(10))
    with open_audio(tmp_path / "a.wav") as audio:
        assert Provenance.read(audio.comment, "x").source.sha256 == "4" * 64


@pytest.mark.parametrize("comment", ["", "a song", "{}", "[1]", '"rvc-batch"'])
def test_other_comments_are_no_record(comment: str) -> None:
    with pytest.raises(TagsMissing, match=r"song\.wav carries no tags of rvc-batch"):
        Provenance.read(comment, "song.wav")


def test_a_damaged_record_and_one_of_another_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads(MADE.comment())
    del values["voice"]
    with pytest.raises(TagsMissing, match="damaged"):
        Provenance.read(json.dumps(values), "a.wav")
    comment = MADE.comment()
    monkeypatch.setattr(provenance_module, "__version__", "9.9")
    with pytest.raises(CannotRenderAgain, match=f"made by rvc-batch {__version__}, this is 9.9"):
        Provenance.read(comment, "a.wav")


def test_a_source_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceGone):
        Source.of(tmp_path / "a.wav")

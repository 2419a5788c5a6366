"""`render-again`: the same bytes from a result's own tags, or one sentence on what is not here any more."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf

import rvc_batch
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import CannotRenderAgain, SettingsInvalid, TagsMissing
from rvc_batch.home import Home
from tests.cli_harness import run
from tests.engine_fakes import NumpyBackend, fake_voice
from tests.unit.test_retrieval import write_index


@dataclass
class Box:
    """A home, with a library of one voice and networks that can be replaced."""

    home: Home
    voice: Voice
    backend: NumpyBackend

    def convert(self, *, f0_file: Path | None = None, **changes: object) -> Path:
        """Convert inbox/a.wav as the box does, which then moves the source, under another name here."""
        source, target = self.home.inbox / "a.wav", self.home.outbox / "a.wav"
        sf.write(source, 0.2 * np.random.default_rng(0).standard_normal(8_000).clip(-3, 3), 16_000)
        settings = ConversionSettings().with_changes(**changes)
        rvc_batch.convert(source, target, voice="anna", home=self.home.root, f0_file=f0_file, settings=settings)
        source.replace(self.home.processed / "a (2).wav")
        return target


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    home = Home(tmp_path / "home")
    home.create()
    index = write_index(home.voices / "a.index", np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32))
    made = Box(home, replace(fake_voice(index=index), name="anna"), NumpyBackend())
    store = SimpleNamespace(
        content_network=lambda _: home.models,
        rmvpe=lambda: home.models,
        pitch_network=lambda _: home.models,
        voice=lambda _, index=None: replace(made.voice, index=index or made.voice.index),
    )
    monkeypatch.setattr("rvc_batch.api._store", lambda _: store)
    monkeypatch.setattr("rvc_batch.engine.backend.open_backend", lambda *_, **__: made.backend)
    return made


def again(box: Box, result: Path, **options: object) -> rvc_batch.api.RenderedAgain:
    return rvc_batch.render_again(result, home=box.home.root, **options)  # type: ignore[arg-type]


def test_a_curve_of_f0_is_told_from_another_and_from_none(box: Box, tmp_path: Path) -> None:
    curve, other = tmp_path / "curve.csv", tmp_path / "other.csv"
    curve.write_text("0.0,200\n0.4,300\n")
    other.write_text("0.0,200\n0.4,301\n")
    plain = box.convert().rename(box.home.outbox / "plain.wav")
    result = box.convert(f0_file=curve)
    assert again(box, result, f0_file=curve).is_identical
    for given, sentence in ((None, "none was given; name it with --f0-file"), (other, "other.csv is another")):
        with pytest.raises(CannotRenderAgain, match=sentence):
            again(box, result, f0_file=given, overwrite=True)
    with pytest.raises(CannotRenderAgain, match=r"without an f0 file, curve\.csv was given"):
        again(box, plain, f0_file=curve)


def test_a_result_comes_again_from_its_tags_alone(box: Box, tmp_path: Path) -> None:
    result = box.convert(seed=3, transpose=4.0)
    moved = tmp_path / "somewhere.wav"
    shutil.copy(result, moved)
    done = again(box, moved)
    assert done.is_identical
    assert done.target == tmp_path / "somewhere (again).wav"
    assert done.target.read_bytes() == result.read_bytes()
    assert done.source == box.home.processed / "a (2).wav"
    with pytest.raises(SettingsInvalid, match="is there already"):
        again(box, moved)
    assert again(box, moved, overwrite=True).is_identical


def test_an_index_that_was_not_used_then_is_not_used_now(box: Box) -> None:
    with_index, box.voice = box.voice, replace(box.voice, index=None)
    result = box.convert()
    box.voice = with_index
    assert again(box, result).is_identical


def test_a_voice_that_was_renamed_makes_the_same_bytes(box: Box) -> None:
    result = box.convert()
    box.voice = replace(box.voice, name="bella")
    assert again(box, result, voice="bella").is_identical


def test_what_is_not_here_any_more_is_named(box: Box, tmp_path: Path) -> None:
    result = box.convert()
    box.backend.networks_sha256 = "other"
    with pytest.raises(CannotRenderAgain, match=r"networks in .* are not those"):
        again(box, result)
    old = box.voice
    box.voice = replace(old, sha256="f" * 64)
    with pytest.raises(CannotRenderAgain, match=r"voice anna is another one now.*ffff.*0000"):
        again(box, result)
    box.voice = replace(old, index=None)
    with pytest.raises(CannotRenderAgain, match="index of voice anna is missing"):
        again(box, result)
    rng = np.random.default_rng(9)
    other = write_index(tmp_path / "other.index", rng.standard_normal((50, 8)).astype(np.float32))
    box.voice = replace(old, index=other)
    with pytest.raises(CannotRenderAgain, match=r"index of voice anna is .*other\.index"):
        again(box, result)
    box.voice, box.backend = old, NumpyBackend()
    assert again(box, result, index=old.index).is_identical
    source = box.home.processed / "a (2).wav"
    source.replace(tmp_path / "away.wav")
    with pytest.raises(CannotRenderAgain, match=r"the source a\.wav .* is neither in .*processed.*--source"):
        again(box, result, overwrite=True)
    with pytest.raises(CannotRenderAgain, match="is not the source of this result"):
        again(box, result, source=result, overwrite=True)
    assert again(box, result, source=tmp_path / "away.wav", overwrite=True).is_identical
    sf.write(tmp_path / "plain.wav", np.zeros(100), 8_000)
    with pytest.raises(TagsMissing, match=r"plain\.wav carries no tags"):
        again(box, tmp_path / "plain.wav")


def test_the_command_says_whether_the_bytes_are_the_same(box: Box, tmp_path: Path) -> None:
    result = str(box.convert())
    text = run(box.home, "render-again", result, "--output", str(tmp_path / "b.wav"), "--json").stdout
    facts = json.loads(text)
    assert (facts["is_identical"], facts["output"]) == (True, str(tmp_path / "b.wav"))
    box.backend = NumpyBackend(level=0.5)  # as another machine would
    text = run(box.home, "render-again", result, "-o", str(tmp_path / "c.wav"), code=1).stdout
    assert "not the same bytes as" in text
    assert (tmp_path / "c.wav").is_file()

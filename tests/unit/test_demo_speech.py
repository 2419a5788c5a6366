"""Reading sentences aloud for the demonstration recipe: what flite says is checked, what is read is kept."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tools.demo_voices import corpus, speech
from tools.demo_voices.settings import TINY
from tools.demo_voices.speech import PHONES, FliteMissing, SpeechFailed, Spoken, Style


class Flite:
    """Stands for the program: remembers the call, writes a file, prints phones."""

    def __init__(self, printed: str, rate: int = 16_000, code: int = 0) -> None:
        self.printed, self.rate, self.code = printed, rate, code
        self.command: list[str] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.command = command
        soundfile.write(command[command.index("-o") + 1], np.full(8000, 0.5), self.rate)
        return subprocess.CompletedProcess(command, self.code, self.printed, "no such voice")


def speak_with(monkeypatch: pytest.MonkeyPatch, flite: Flite, voice: str = "slt") -> Spoken:
    monkeypatch.setattr(speech.subprocess, "run", flite)
    return speech.speak(voice, "Hello.", Style(1.25, 0.8))


def test_phones_and_their_ends_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    flite = Flite("pau:0.164 hh:0.255 ow:0.304 pau:0.500 \n\n")
    said = speak_with(monkeypatch, flite)
    assert [PHONES[p] for p in said.phones] == ["pau", "hh", "ow", "pau"]
    np.testing.assert_allclose(said.ends, [0.164, 0.255, 0.304, 0.5])
    assert said.wave.dtype == np.int16
    assert said.wave.size == 8000
    assert "duration_stretch=1.2500" in flite.command
    assert "f0_shift=0.8000" in flite.command
    assert not any("target_mean" in part for part in flite.command)


def test_diphone_voice_takes_its_pitch_in_hz(monkeypatch: pytest.MonkeyPatch) -> None:
    flite = Flite("pau:0.5 ")
    speak_with(monkeypatch, flite, "kal16")
    assert "int_f0_target_mean=84.000" in flite.command


@pytest.mark.parametrize(
    ("flite", "said"),
    [
        (Flite("pau:0.1 ax:0.2 \npau:0.1 ax:0.2 \n"), "in 2 parts at 16000 Hz"),
        (Flite("pau:0.1 ax:0.2 \n", rate=8000), "in 1 parts at 8000 Hz"),
        (Flite("pau:0.1 qq:0.2 \n"), r"phones \['qq'\]"),
        (Flite("", code=1), "ended with 1: no such voice"),
    ],
)
def test_what_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, flite: Flite, said: str) -> None:
    with pytest.raises(SpeechFailed, match=said):
        speak_with(monkeypatch, flite)


def test_missing_program_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FliteMissing, match="flite is not installed"):
        speech.speak("slt", "Hello.", Style())


def test_interrupted_reading_goes_on_with_the_chunk_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(corpus, "CHUNK", 2)
    recipe = dataclasses.replace(TINY, threads=1)
    read: list[str] = []
    interrupt_at = [5]

    def say(voice: str, text: str, style: Style) -> Spoken:
        if interrupt_at == [len(read)]:
            interrupt_at.clear()
            raise RuntimeError("interrupted")
        read.append(text)
        return Spoken(np.full(100 + len(text), len(text), np.int16), np.array([0], np.int16), np.array([1], np.float32))

    monkeypatch.setattr(corpus, "speak", say)
    with pytest.raises(RuntimeError, match="interrupted"):
        corpus.build_corpus(recipe, tmp_path)
    first = read[:4]
    del read[:]
    whole = corpus.build_corpus(recipe, tmp_path)
    assert not set(first) & set(read[:2])  # chunks that were whole are not read again
    assert [u.text for u in whole.by_voice["slt"]] == list(range(6))
    assert all((u.spoken.wave == u.spoken.wave.size - 100).all() for u in whole)


def test_too_many_failures_end_the_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(voice: str, text: str, style: Style) -> Spoken:
        raise SpeechFailed("no")

    monkeypatch.setattr(corpus, "speak", fail)
    with pytest.raises(SpeechFailed, match="slt read only 0 of 6 sentences"):
        corpus.build_corpus(TINY, tmp_path)


def test_without_flite_nothing_is_written_so_that_it_can_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FliteMissing, match="flite is not installed"):
        corpus.build_corpus(TINY, tmp_path)
    assert not list((tmp_path / "corpus").iterdir())

"""The voices a backend keeps loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvc_batch.engine.resident import ResidentVoices

A, B, C = Path("a"), Path("b"), Path("c")


@pytest.fixture
def loads() -> list[Path]:
    return []


@pytest.fixture
def voices(loads: list[Path]) -> ResidentVoices[str]:
    def load(path: Path) -> str:
        loads.append(path)
        if path == Path("broken"):
            raise ValueError("broken")
        return path.name

    return ResidentVoices(load, capacity=2)


def test_resident_voice_is_not_loaded_again(voices: ResidentVoices[str], loads: list[Path]) -> None:
    for path in (A, B, A, B):
        assert voices.make_current(path) == path.name
    assert loads == [A, B]


def test_least_recently_used_voice_is_dropped(voices: ResidentVoices[str], loads: list[Path]) -> None:
    for path in (A, B, A, C, A, B):
        voices.make_current(path)
    assert loads == [A, B, C, B]
    assert len(voices) == 2


def test_current_voice_is_the_last_one_made_current(voices: ResidentVoices[str]) -> None:
    voices.make_current(A)
    voices.make_current(B)
    voices.make_current(A)
    assert voices.current == "a"


def test_voice_that_cannot_be_loaded_changes_nothing(voices: ResidentVoices[str]) -> None:
    voices.make_current(A)
    with pytest.raises(ValueError, match="broken"):
        voices.make_current(Path("broken"))
    assert voices.current == "a"
    assert len(voices) == 1


def test_no_voice_is_an_error_that_says_what_to_do(voices: ResidentVoices[str]) -> None:
    with pytest.raises(RuntimeError, match="load_voice"):
        _ = voices.current

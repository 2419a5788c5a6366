"""`rvc-batch pitch` prints f0 as CSV or as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

import rvc_batch
from rvc_batch.api import analyse
from rvc_batch.engine.types import PitchTrack
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from tests.cli_harness import run


@pytest.fixture(autouse=True)
def track(monkeypatch: pytest.MonkeyPatch) -> None:
    found = PitchTrack(np.array([0.0, 220.12345, 440.0], np.float32))
    monkeypatch.setattr(rvc_batch, "pitch", lambda *_, **__: found)


def test_pitch_is_csv(tmp_path: Path) -> None:
    shown = run(Home(tmp_path), "pitch", "a.wav").stdout
    assert shown == "time_s,f0_hz\n0.00,0.000\n0.01,220.123\n0.02,440.000\n"


def test_pitch_is_json_on_request_and_in_a_file_too(tmp_path: Path) -> None:
    expected = {"version": 1, "frames_per_second": 100, "f0_hz": [0.0, 220.123, 440.0]}
    assert json.loads(run(Home(tmp_path), "pitch", "a.wav", "--json").stdout) == expected
    run(Home(tmp_path), "pitch", "a.wav", "--json", "--output", str(tmp_path / "f0.json"))
    assert json.loads((tmp_path / "f0.json").read_text()) == expected


def test_the_method_is_that_of_the_option_then_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def pitch(*_: object, pitch_method: str, pitch_threshold: float, **__: object) -> PitchTrack:
        asked.append((pitch_method, pitch_threshold))
        return PitchTrack(np.zeros(1, np.float32))

    monkeypatch.setattr(rvc_batch, "pitch", pitch)
    run(Home(tmp_path), "pitch", "a.wav")
    (tmp_path / "rvc-batch.toml").write_text('[conversion]\npitch_method = "pm"\n')
    run(Home(tmp_path), "pitch", "a.wav")
    run(Home(tmp_path), "pitch", "a.wav", "--pitch-method", "rmvpe", "--pitch-threshold", "0.1")
    assert asked == [("rmvpe", 0.0), ("pm", 0.0), ("rmvpe", 0.1)]


def test_an_unknown_method_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="pitch_method is 'magic'"):
        analyse([tmp_path / "none.wav"], home=tmp_path, pitch_method="magic")

"""Every setting of a conversion is an option of `convert` and of `add`, and what is given for it arrives."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import rvc_batch
from rvc_batch.cli import build_app
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.home import Home
from tests.cli_harness import run
from tests.job_fakes import report_like

OTHERS: dict[str, Any] = {  # none is the default
    "transpose": -3.5,
    "index_rate": 0.5,
    "protect": 0.2,
    "rms_mix_rate": 0.75,
    "speaker_id": 3,
    "seed": 2**40,
    "noise_scale": 0.5,
    "source_noise_scale": 0.25,
    "dialect": "applio",
    "seams": "upstream",
    "embedder": "spin",
    "pitch_method": "pm",
    "pitch_threshold": 0.5,
    "f0_smoothing": 5,
    "auto_key": 155.0,
    "autotune": 0.8,
    "autotune_scale": "A minor",
    "formant_shift": 1.25,
    "formant_quefrency_ms": 2.0,
    "resample_rate": 44_100,
    "output_format": "flac",
    "channels": "stereo",
    "loudness_lufs": -16.0,
    "gate_db": -50.0,
    "noise_reduction": 0.5,
    "effects": "gain(gain_db=-3)",
}


def given_to(command: str) -> list[str]:
    """Return every setting as words on the command line, by the option that the command has for it."""
    found = typer.main.get_command(build_app()).commands[command]  # type: ignore[attr-defined]
    names = {option.name: option.opts[0] for option in found.params}
    return [word for name, value in OTHERS.items() for word in (names[name], str(value))]


def test_there_is_another_value_for_every_setting() -> None:
    assert list(OTHERS) == [field.name for field in dataclasses.fields(ConversionSettings)]
    assert not OTHERS.items() & dataclasses.asdict(ConversionSettings()).items()


def test_convert_has_an_option_for_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ConversionSettings] = []

    def convert(*_: object, settings: ConversionSettings, **__: object) -> object:
        asked.append(settings)
        return report_like(samples=10, rate=40_000)

    monkeypatch.setattr(rvc_batch, "convert", convert)
    run(Home(tmp_path), "convert", "a.wav", "b.flac", *given_to("convert"))
    assert asked == [ConversionSettings(**OTHERS)]


def test_add_has_an_option_for_every_setting(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.inbox.mkdir(parents=True)
    (tmp_path / "a.wav").write_bytes(b"audio")
    run(home, "add", str(tmp_path / "a.wav"), *given_to("add"))
    assert tomllib.loads((home.inbox / "a.wav.toml").read_text()) == OTHERS

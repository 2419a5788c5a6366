"""`rvc-batch convert` hands the precision on: the option, else the settings of the worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rvc_batch
from rvc_batch.engine.precision import FULL, Precision
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from tests.cli_harness import run
from tests.job_fakes import report_like


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Precision]:
    """Return the precision of every conversion that a test asks for."""
    found: list[Precision] = []

    def convert(*_: object, precision: Precision, **__: Any) -> object:
        found.append(precision)
        return report_like(samples=10, rate=40_000)

    monkeypatch.setattr(rvc_batch, "convert", convert)
    return found


def test_precision_is_that_of_the_options_then_of_the_settings(tmp_path: Path, asked: list[Precision]) -> None:
    run(Home(tmp_path), "convert", "a.wav", "b.wav")
    (tmp_path / "rvc-batch.toml").write_text('[worker]\nprecision = "bfloat16"\nquantize_bits = 8\n')
    run(Home(tmp_path), "convert", "a.wav", "b.wav")
    run(Home(tmp_path), "convert", "a.wav", "b.wav", "--precision", "float16")
    run(Home(tmp_path), "convert", "a.wav", "b.wav", "--precision", "float32", "--quantize-bits", "0")
    assert asked == [FULL, Precision("bfloat16", 8), Precision("float16", 8), FULL]


def test_unknown_precision_is_one_sentence(tmp_path: Path, asked: list[Precision]) -> None:
    with pytest.raises(SettingsInvalid, match="precision is 'half', expected one of float32, float16, bfloat16"):
        run(Home(tmp_path), "convert", "a.wav", "b.wav", "--precision", "half")
    assert not asked


def test_options_of_pitch_reach_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def convert(*_: object, **options: Any) -> object:
        asked.update(options)
        return replace(report_like(samples=10, rate=40_000), auto_key=-3)

    monkeypatch.setattr(rvc_batch, "convert", convert)
    options = "--pitch-method pm --pitch-threshold 0.5 --f0-smoothing 5 --auto-key 155 --autotune 0.8 --f0-file f0.csv"
    shown = run(Home(tmp_path), "convert", "a.wav", "b.wav", *options.split(), "--autotune-scale", "A minor").stdout
    expected = ConversionSettings(
        pitch_method="pm",
        pitch_threshold=0.5,
        f0_smoothing=5,
        auto_key=155.0,
        autotune=0.8,
        autotune_scale="A minor",
    )
    assert asked["settings"] == expected
    assert asked["f0_file"] == Path("f0.csv")
    assert shown.endswith("auto key: -3 semitones\n")

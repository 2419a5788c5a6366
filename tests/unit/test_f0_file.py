"""f0 files: what is read, what is refused, and what a curve does to a track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rvc_batch.engine.f0_file import F0Curve, format_f0, read_f0_file
from rvc_batch.engine.types import PitchTrack
from rvc_batch.errors import SettingsInvalid


def written(folder: Path, text: str) -> Path:
    path = folder / "f0.csv"
    path.write_text(text, encoding="utf-8")
    return path


def curve(*rows: tuple[float, float]) -> F0Curve:
    return F0Curve("f0.csv", np.array([t for t, _ in rows]), np.array([hz for _, hz in rows]))


def constant(frames: int, hz: float = 50.0) -> PitchTrack:
    return PitchTrack(np.full(frames, hz, np.float32))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    f0 = (rng.uniform(60, 900, 2_000) * (rng.uniform(size=2_000) > 0.3)).astype(np.float32)
    found = read_f0_file(written(tmp_path, format_f0(PitchTrack(f0))))
    laid = found.laid_over(constant(2_100), context=100).f0
    np.testing.assert_allclose(laid[100:], f0, atol=5.1e-4)
    np.testing.assert_array_equal(laid[:100], 50)


def test_upstreams_form_has_no_header(tmp_path: Path) -> None:
    found = read_f0_file(written(tmp_path, "0,100\n1.5, 200\n\n2.0,0\n"))
    np.testing.assert_array_equal(found.times_s, [0, 1.5, 2])
    np.testing.assert_array_equal(found.f0_hz, [100, 200, 0])


def test_between_voiced_rows_the_curve_is_linear_and_towards_unvoiced_ones_it_steps() -> None:
    laid = curve((0.0, 100), (0.04, 140), (0.07, 0)).laid_over(constant(9), context=0).f0
    np.testing.assert_allclose(laid, [100, 110, 120, 130, 140, 140, 0, 0, 50], rtol=1e-6)


def test_frames_outside_the_span_stay_as_they_were() -> None:
    laid = curve((0.02, 300), (0.03, 300)).laid_over(constant(8), context=2).f0
    np.testing.assert_array_equal(laid, [50, 50, 50, 50, 300, 300, 50, 50])
    beyond = curve((0.0, 300), (9.0, 300)).laid_over(constant(4), context=1).f0
    np.testing.assert_array_equal(beyond, [50, 300, 300, 300])
    np.testing.assert_array_equal(curve((9.0, 300), (9.5, 300)).laid_over(constant(4), context=1).f0, 50)
    np.testing.assert_array_equal(curve((0.013, 300), (0.017, 300)).laid_over(constant(4), context=0).f0, 50)


def test_one_row_is_one_frame() -> None:
    np.testing.assert_array_equal(curve((0.01, 300)).laid_over(constant(3), context=0).f0, [50, 300, 50])


def test_other_rows_have_another_hash() -> None:
    assert curve((0, 100)).sha256 != curve((0, 101)).sha256
    assert curve((0, 100)).sha256 != curve((0.01, 100)).sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no row"),
        ("time_s,f0_hz\n", "holds no row"),
        ("0,100\n0.01;100\n", r"f0.csv:2: '0.01;100' is not time in s and f0 in Hz"),
        ("0,100\ntime_s,f0_hz\n", "f0.csv:2: 'time_s,f0_hz' is not time"),
        ("0,100,3\n", "f0.csv:1: '0,100,3' is not time"),
        ("0,100\n0.01,100\n0.01,101\n", r"f0.csv:3: 0.01 s does not come after 0.01 s"),
        ("-0.01,100\n", r"f0.csv:1: the time is -0.01, expected seconds"),
        ("nan,100\n", r"f0.csv:1: the time is nan"),
        ("0,5\n", "f0.csv:1: f0 is 5 Hz, expected 0 for unvoiced, or 20 to 4000"),
        ("0,nan\n", "f0 is nan Hz"),
        ("0,-3\n", "f0 is -3 Hz"),
    ],
)
def test_what_is_no_curve_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        read_f0_file(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read: No such file"):
        read_f0_file(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsInvalid, match="cannot be read: it is not UTF-8 text"):
        read_f0_file(tmp_path / "binary.csv")

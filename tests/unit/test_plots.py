"""The picture of one job shows what was measured, where it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rvc_batch.engine.mel_basis import mel_filter_bank
from rvc_batch.engine.types import PitchTrack
from rvc_batch.plots import conversion
from rvc_batch.plots.conversion import COLUMNS, FLOOR_DB, Side, draw_conversion, measure


def tone(path: Path, *, hz: float, seconds: float, rate: int = 16_000, level: float = 0.5) -> Path:
    times = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, level * np.sin(2 * np.pi * hz * times), rate)
    return path


def test_loudest_band_is_that_of_the_tone_and_loudness_its_level(tmp_path: Path) -> None:
    levels = measure(tone(tmp_path / "a.wav", hz=1000, seconds=2, rate=44_100))
    assert levels.seconds == pytest.approx(2.0)
    bands = mel_filter_bank()
    expected = int(np.argmax(bands[:, round(1000 / 16_000 * 1024)]))
    assert abs(int(np.argmax(levels.mel_db[levels.mel_db.shape[0] // 2])) - expected) <= 1
    middle = levels.rms_db[levels.rms_db.size // 2]
    assert middle == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.2)


def test_silence_is_the_floor_and_no_warning(tmp_path: Path) -> None:
    levels = measure(tone(tmp_path / "a.wav", hz=100, seconds=0.5, level=0.0))
    assert np.all(levels.rms_db == pytest.approx(FLOOR_DB))


def test_a_long_file_has_no_more_columns_than_a_picture_shows(tmp_path: Path) -> None:
    assert measure(tone(tmp_path / "a.wav", hz=200, seconds=200, rate=8000)).mel_db.shape == (COLUMNS, 128)


def test_picture_shows_both_ends_and_every_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    axes: list[Any] = []

    @contextmanager
    def keep(_: Path, *, rows: int, height: float) -> Iterator[tuple[Any, Any]]:
        figure = Figure()
        axes.extend(figure.subplots(rows, 1, sharex=True))
        yield figure, axes

    monkeypatch.setattr(conversion, "drawn", keep)
    track = PitchTrack(np.array([0.0, 220.0, 221.0, 0.0], np.float32))
    higher = PitchTrack(track.f0 * 2)
    before = Side("in: a.wav", tone(tmp_path / "a.wav", hz=220, seconds=1), track)
    after = Side("out: b.wav", tone(tmp_path / "b.wav", hz=440, seconds=1, rate=40_000), higher)
    draw_conversion(before, after, (0.25, 0.75), tmp_path / "p.png")
    assert [axis.get_title() for axis in axes] == ["in: a.wav", "out: b.wav", "", ""]
    assert all(len(axis.images) == 1 for axis in axes[:2])
    first, second = (line.get_ydata() for line in axes[2].lines[:2])
    assert list(first[1:3]) == [220.0, 221.0]
    assert list(second[1:3]) == [440.0, 442.0]
    assert np.isnan(first[0]), "unvoiced frames are gaps"
    for axis in axes:
        borders = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
        assert borders == [0.25, 0.75]


def test_picture_is_written_whole(tmp_path: Path) -> None:
    track = PitchTrack(np.full(50, 220.0, np.float32))
    side = Side("x", tone(tmp_path / "a.wav", hz=220, seconds=0.5), track)
    draw_conversion(side, side, (), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "p.png"]

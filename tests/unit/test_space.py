"""A conversion that does not fit is not begun, and names the volume and both numbers."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import space
from rvc_batch.engine.audio_io import BlockWriter
from rvc_batch.engine.converter import Converter, Progress
from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.engine.space import check_space
from rvc_batch.errors import DiskFull
from tests.engine_fakes import NumpyBackend, fake_voice

Usage = namedtuple("Usage", "free")
Free = Callable[[Path], int]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[Free], None]:
    def set_free(of: Free) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(of(path)))

    return set_free


def check(folder: Path, **changes: Any) -> None:
    asked = {"seconds": 100.0, "rates": (40_000, 48_000), "output_format": "wav"} | changes
    check_space(folder / "out.wav", folder, **asked)


NEEDED = int(1.2 * 100 * (40_000 * 4 + 48_000 * 2)) + (1 << 20)


def test_one_volume_must_hold_rendering_and_result_together(tmp_path: Path, free: Callable[[Free], None]) -> None:
    free(lambda _: NEEDED)
    check(tmp_path)
    free(lambda _: NEEDED - 1)
    with pytest.raises(DiskFull, match=rf"100 s of audio need 32 MB on the volume of {tmp_path}, 32 MB are free"):
        check(tmp_path)


def test_each_of_two_volumes_must_hold_its_part(
    tmp_path: Path, free: Callable[[Free], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, scratch = tmp_path / "outbox", tmp_path / "scratch"
    for folder in (outbox, scratch):
        folder.mkdir()
    stat = Path.stat

    def on_two(path: Path, **options: Any) -> Any:
        found = stat(path, **options)
        return namedtuple("Found", "st_dev")(1) if path == outbox else found

    monkeypatch.setattr(Path, "stat", on_two)
    encoded = int(1.2 * 100 * 48_000 * 2) + (1 << 20)
    rendered = int(1.2 * 100 * 40_000 * 4) + (1 << 20)
    asked = {"seconds": 100.0, "rates": (40_000, 48_000), "output_format": "wav"}
    for short, room in ((None, 0), (outbox, encoded), (scratch, rendered)):
        free(lambda path, short=short, room=room: room - 1 if path == short else 10**12)
        if short is None:
            check_space(outbox / "out.wav", scratch, **asked)  # type: ignore[arg-type]
        else:
            with pytest.raises(DiskFull, match=str(short)):
                check_space(outbox / "out.wav", scratch, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_the_estimate_is_an_upper_bound_for_noise_in_every_format(tmp_path: Path, output_format: str) -> None:
    suffix, _, subtype = OUTPUT_FORMATS[output_format]
    noise = np.random.default_rng(0).uniform(-0.99, 0.99, 48_000 * 3).astype(np.float32)
    writer = BlockWriter(tmp_path / f"a{suffix}", output_format, 48_000, noise.size)
    writer.write(noise)
    writer.close()
    estimate = 3 * 48_000 * space._WIDTHS[subtype] * space.MARGIN + space.SMALLEST
    assert (tmp_path / f"a{suffix}").stat().st_size < estimate


def test_a_conversion_without_room_stops_before_the_networks_and_leaves_no_file(
    tmp_path: Path, free: Callable[[Free], None]
) -> None:
    sf.write(tmp_path / "in.wav", np.zeros(16_000), 16_000)
    stages: list[str] = []
    converter = Converter(NumpyBackend(), scratch=tmp_path / "scratch")

    def convert() -> None:
        converter.convert(
            tmp_path / "in.wav",
            tmp_path / "out.wav",
            voice=fake_voice(),
            settings=ConversionSettings(index_rate=0.0),
            progress=lambda p: note(p, stages),
        )

    free(lambda _: 1_000_000)
    with pytest.raises(DiskFull, match="1 MB are free"):
        convert()
    assert stages == []
    assert not (tmp_path / "out.wav").exists()
    assert list((tmp_path / "scratch").iterdir()) == []
    free(lambda _: 10**12)
    convert()
    assert stages[-1] == "encode"


def note(progress: Progress, stages: list[str]) -> None:
    stages.append(progress.stage)

"""The home of the demonstration: made of what the package holds, and never over somebody's files."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rvc_batch.demo import main_job
from rvc_batch.demo.box import MODELS, VOICES, make_box
from rvc_batch.errors import HomeInvalid
from rvc_batch.home import Home

ROOT = Path(__file__).parents[2]
SHIPPED_BYTES = 12_000_000


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_files() -> set[Path]:
    return {path for path in MODELS.parent.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}


def test_box_has_networks_voices_with_index_and_their_settings(tmp_path: Path) -> None:
    home = Home(tmp_path / "box")
    make_box(home)
    assert {path.name for path in home.models.iterdir()} == {"hubert_base.pt", "rmvpe.pt"}
    for voice in VOICES:
        assert {path.suffix for path in (home.voices / voice).iterdir()} == {".pth", ".index"}
        assert tomllib.loads((home.voices / f"{voice}.toml").read_text())["auto_key"] > 0


def test_second_time_changes_nothing_and_mends_what_is_broken(tmp_path: Path) -> None:
    home = Home(tmp_path)
    make_box(home)
    config = home.root / "rvc-batch.toml"
    config.write_text(config.read_text() + "[worker]\n")
    (home.models / "rmvpe.pt").write_bytes(b"half of it")
    (home.inbox / "mine.wav").write_bytes(b"kept")
    make_box(home)
    after = held(home.root)
    assert after["models/rmvpe.pt"] == (MODELS / "rmvpe.pt").read_bytes()
    assert after["inbox/mine.wav"] == b"kept"
    assert after["rvc-batch.toml"].endswith(b"[worker]\n")


def test_folder_of_somebody_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "rvc-batch.toml").write_text("[watch]\n")
    (tmp_path / "voices").mkdir()
    before = held(tmp_path)
    with pytest.raises(HomeInvalid, match="was not made by `rvc-batch demo`; name another folder"):
        make_box(Home(tmp_path))
    assert held(tmp_path) == before


def test_package_ships_every_file_of_it_and_no_more_than_it_may_weigh() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["rvc_batch"]
    shipped = {path for pattern in patterns for path in (ROOT / "rvc_batch").glob(pattern)}
    assert data_files() <= shipped
    assert sum(path.stat().st_size for path in data_files()) <= SHIPPED_BYTES


def test_a_daemon_that_does_not_end_when_asked_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_job, "STOP_PATIENCE_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        main_job._stop(daemon)
        assert daemon.returncode == -signal.SIGKILL

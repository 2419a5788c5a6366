"""The log escapes what a file name could smuggle in, and stays within its size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch import logs


@pytest.fixture(autouse=True)
def own_root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    yield
    for handler in root.handlers:
        handler.close()


def test_names_cannot_forge_lines_or_drive_the_terminal(tmp_path: Path) -> None:
    logs.configure(tmp_path, level="info")
    logging.getLogger("x").info("job %d: %s", 7, "a\nb\x1b[2J\u202e\udcff é日本.wav")
    text = (tmp_path / logs.FILE_NAME).read_text()
    assert "job 7: a\\nb\\x1b[2J\\u202e\\udcff é日本.wav" in text
    assert len(text.splitlines()) == 1


def test_traceback_keeps_its_lines(tmp_path: Path) -> None:
    logs.configure(tmp_path, level="info")
    try:
        raise ValueError("wrong\x1b")
    except ValueError:
        logging.getLogger("x").exception("failed")
    text = (tmp_path / logs.FILE_NAME).read_text()
    assert len(text.splitlines()) > 3
    assert "\x1b" not in text


def test_level_is_respected_and_configuring_again_does_not_double(tmp_path: Path) -> None:
    logs.configure(tmp_path, level="info")
    logs.configure(tmp_path, level="warning")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert (tmp_path / logs.FILE_NAME).read_text().count("loud") == 1
    assert "quiet" not in (tmp_path / logs.FILE_NAME).read_text()


def test_log_rotates_and_keeps_five_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    logs.configure(tmp_path, level="info")
    for _ in range(500):
        logging.getLogger("x").info("the same error again")
    files = list(tmp_path.iterdir())
    assert len(files) == 6
    assert sum(f.stat().st_size for f in files) <= 6 * 2000

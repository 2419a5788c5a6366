"""The log escapes what a file name could smuggle in, and stays within its size."""

from __future__ import annotations

import json
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


def test_every_line_names_its_job_once(tmp_path: Path) -> None:
    logs.configure(tmp_path, level="info")
    logging.getLogger("x").info("job %d: claimed", 7)
    logging.getLogger("x").info("%s", "clipped", extra={"job": 7})
    logging.getLogger("x").info("%s", "job 7: said by itself", extra={"job": 7})
    logging.getLogger("x").info("about none", extra={"job": None})
    lines = [line.split(" x: ")[1] for line in (tmp_path / logs.FILE_NAME).read_text().splitlines()]
    assert lines == ["job 7: claimed", "job 7: clipped", "job 7: said by itself", "about none"]


def test_json_is_one_object_per_line_with_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(tmp_path, level="info", as_json=True)
    logging.getLogger("x").info("job %d: %s", 7, "a\nb\x1b")
    logging.getLogger("y").warning("%s", "clipped", extra={"job": 8})
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("z").exception("failed")
    entries = [json.loads(line) for line in (tmp_path / logs.FILE_NAME).read_text().splitlines()]
    assert [(e["level"], e["logger"], e["job"]) for e in entries] == [
        ("info", "x", 7),
        ("warning", "y", 8),
        ("error", "z", None),
    ]
    assert entries[0]["text"] == "job 7: a\nb\x1b"
    assert "ValueError: wrong" in entries[2]["traceback"]
    assert all(entry["at"].endswith("+00:00") for entry in entries)
    assert "job 7: a\\nb\\x1b" in capsys.readouterr().err, "standard error is for people"


def test_a_log_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    logs.configure(tmp_path, level="info")
    logging.getLogger("x").info("before")
    (tmp_path / logs.FILE_NAME).rename(tmp_path / "moved")
    logging.getLogger("x").info("still the old one")
    logs.configure(tmp_path, level="info")
    logging.getLogger("x").info("after")
    assert len((tmp_path / "moved").read_text().splitlines()) == 2
    assert "after" in (tmp_path / logs.FILE_NAME).read_text()


def test_log_rotates_and_keeps_five_old_ones(tmp_path: Path) -> None:
    logs.configure(tmp_path, level="info", max_bytes=2000)
    for _ in range(500):
        logging.getLogger("x").info("the same error again")
    files = list(tmp_path.iterdir())
    assert len(files) == 6
    assert sum(f.stat().st_size for f in files) <= 6 * 2000

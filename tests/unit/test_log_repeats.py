"""A line that comes again and again does not fill the disk, and what it kept back is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch import log_repeats, logs
from rvc_batch.log_repeats import BURST, MAX_LINES, WINDOW_S, Repeats, limit_repeats


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[logging.Logger]:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure(tmp_path, level="info", to_stderr=False)
    limit_repeats(root)
    yield logging.getLogger("rvc_batch.test")
    for handler in root.handlers:
        handler.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(text: str = "%s is gone", *arguments: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("test", level, __file__, 1, text, arguments or ("inbox",), None)


def test_twenty_thousand_equal_errors_are_a_few_lines(logger: logging.Logger, tmp_path: Path) -> None:
    for _ in range(20_000):
        logger.error("no space left on %s", "/outbox")
    logger.error("something else")
    lines = (tmp_path / logs.FILE_NAME).read_text().splitlines()
    assert len(lines) == BURST + 1
    assert lines[-1].endswith("something else")


def test_the_next_line_says_how_often_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    repeats, other = Repeats(clock), Repeats(clock)
    passed = [repeats.filter(record()) for _ in range(BURST + 7)]
    assert passed == [True] * BURST + [False] * 7
    for _ in range(BURST + 7):
        other.filter(record())
    clock.now += WINDOW_S
    late = record()
    assert repeats.filter(late)
    assert other.filter(late), "each handler has a filter of its own"
    assert late.getMessage() == "inbox is gone (and 7 times more since)"


def test_lines_that_differ_are_not_counted_together() -> None:
    repeats = Repeats(Clock())
    assert all(repeats.filter(record("%s is gone", number)) for number in range(100))
    assert all(repeats.filter(record(level=level)) for level in (logging.ERROR, logging.WARNING) for _ in range(BURST))


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats(Clock())
    for number in range(MAX_LINES * 2):
        repeats.filter(record("%s", number))
    assert len(repeats._lines) == MAX_LINES
    assert log_repeats.MAX_LINES >= 100

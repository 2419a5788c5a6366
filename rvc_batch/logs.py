"""The log: one rotating file and standard error, with file names made harmless.

Only the daemon writes the file; its worker sends records over the pipe, because two processes cannot rotate one file.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_NAME = "rvc-batch.log"
MAX_BYTES, BACKUPS = 10_000_000, 5
STDERR = 2  # the descriptor, which native code writes to as well
LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure(folder: Path, *, level: str, to_stderr: bool = True) -> None:
    """Log to `folder`/rvc-batch.log and, if wanted, to standard error; replaces what was configured before.

    Raises:
        OSError: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(folder / FILE_NAME, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    handlers: list[logging.Handler] = [file, logging.StreamHandler(sys.stderr)] if to_stderr else [file]
    for handler in handlers:
        handler.setFormatter(SafeFormatter(FORMAT))
        root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("watchdog", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def trim_standard_error() -> None:
    """Empty standard error if it is a file that has grown too large: launchd appends to it and never rotates it."""
    state = os.fstat(STDERR)
    if stat.S_ISREG(state.st_mode) and state.st_size > MAX_BYTES:
        os.ftruncate(STDERR, 0)


class SafeFormatter(logging.Formatter):
    """Escapes what could drive a terminal or forge a line; a traceback keeps its line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return printable(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the message on one line."""
        record.message = printable(record.message, keep="")
        return super().formatMessage(record)


def printable(text: str, *, keep: str = "\n") -> str:
    """Escape control characters, direction overrides and lone surrogates, except those in `keep`."""
    if text.isprintable():  # nearly always, and much faster than a look at each character
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)

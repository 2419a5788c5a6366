"""The log: one rotating file and standard error, with file names made harmless.

Only the daemon writes the file; its worker sends records over the pipe, because two processes cannot rotate one file.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_NAME = "rvc-batch.log"
MAX_BYTES, BACKUPS = 10_000_000, 5
STDERR = 2  # the descriptor, which native code writes to as well
LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
JOB_PREFIX = "job %d"  # how a message begins that is about a job


def configure(
    folder: Path,
    *,
    level: str,
    to_stderr: bool = True,
    as_json: bool = False,
    max_bytes: int = MAX_BYTES,
    kept: int = BACKUPS,
) -> None:
    """Log to `folder`/rvc-batch.log and, if wanted, to standard error; replaces what was configured before.

    Called again it opens the file anew, so that another program may have moved it away.

    Args:
        as_json: one JSON object per line in the file; standard error is for people.
        max_bytes: size at which the file is put aside.
        kept: how many of those are kept.

    Raises:
        OSError: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(folder / FILE_NAME, maxBytes=max_bytes, backupCount=kept, encoding="utf-8")
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    handlers: list[logging.Handler] = [file, logging.StreamHandler(sys.stderr)] if to_stderr else [file]
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if as_json and handler is file else SafeFormatter(FORMAT))
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
        """Return the message on one line, with the job it is about."""
        job, text = job_of(record), printable(record.message, keep="")
        is_said = job is None or text.startswith(JOB_PREFIX % job)
        record.message = text if is_said else f"{JOB_PREFIX % job}: {text}"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: at (UTC), level, logger, job (or null), text, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "job": job_of(record),
            "text": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def job_of(record: logging.LogRecord) -> int | None:
    """Return the job that a record is about: the one it was given, or the one its message begins with."""
    given = getattr(record, "job", None)
    if given is not None:
        return int(given)
    if isinstance(record.msg, str) and record.msg.startswith(JOB_PREFIX) and isinstance(record.args, tuple):
        return int(record.args[0]) if record.args and isinstance(record.args[0], int) else None
    return None


def printable(text: str, *, keep: str = "\n") -> str:
    """Escape control characters, direction overrides and lone surrogates, except those in `keep`."""
    if text.isprintable():  # nearly always, and much faster than a look at each character
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)

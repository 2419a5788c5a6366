"""A job database as it was at one moment, read with the driver alone.

`status` has to answer before SQLAlchemy would be loaded, so it reads through this, with the statements of
`rvc_batch.db.statements` that were compiled ahead of time (`rvc_batch.db.status_sql`). Nothing here writes, creates a
file, or waits longer than a moment for a lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rvc_batch.db.faults import explained, missing

READER_TIMEOUT_S = 0.25  # `status` answers rather than waits


class Snapshot:
    """One read transaction: every question is answered from the same moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, **values: float | str) -> list[sqlite3.Row]:
        """Return the rows; `values` are the named parameters of the statement."""
        return self._connection.execute(statement, values).fetchall()

    def value(self, statement: str, **values: float | str) -> Any:
        """Return the first column of the first row; None without a row."""
        found = self.rows(statement, **values)
        return found[0][0] if found else None


@contextmanager
def open_snapshot(path: Path) -> Iterator[Snapshot]:
    """Open an existing database for one consistent view that blocks no writer.

    Raises:
        DatabaseUnusable: no such file, locked, damaged, no database, or its tables are not those this version knows.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with closing(connect_read_only(path)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN").close()
            yield Snapshot(connection)
    except sqlite3.Error as e:
        raise explained(e, path) from e


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Connect for reading only; nothing is created, not even SQLite's own side files."""
    # Without a write-ahead log nobody writes, and `immutable` reads without creating side files.
    quiet = not path.with_name(path.name + "-wal").exists()
    uri = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if quiet else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=READER_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON").close()
    return connection

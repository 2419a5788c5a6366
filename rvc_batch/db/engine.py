"""Connections to the job database: pragmas, BEGIN IMMEDIATE for writers, and errors with a remedy.

SQLite takes the write lock when a transaction begins, because a transaction that reads first and then writes fails at
once instead of waiting. A `Database` retries while another process holds the lock; it never holds a transaction open
between two calls and never retries anything else.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from rvc_batch.db.faults import corrupt, error_name, explained, missing
from rvc_batch.db.snapshot import connect_read_only
from rvc_batch.errors import DatabaseUnusable

logger = logging.getLogger(__name__)
T = TypeVar("T")

BUSY_TIMEOUT_S = 10.0  # one wait for the write lock
BUSY_WAITS = 6  # a writer gives up after a minute
LONG_LOG_BYTES = 16 << 20  # of the write-ahead log; SQLite moves it into the file at 4 MB, unless readers overlap
RESTART_WAIT_S = 0.5  # for the readers that still look at a long log
RESTART_EVERY_S = 5.0  # a reader that never ends must not cost every write this wait


class Database:
    """One job database, opened to write or only to read."""

    def __init__(self, path: Path, engine: Engine, *, checkpoints: bool = False, busy_waits: int = BUSY_WAITS) -> None:
        self.path = path
        self._checkpoints = checkpoints
        self._next_restart = 0.0
        self._engine = engine
        self._reads = engine.execution_options(deferred=True)
        self._busy_waits = busy_waits
        self._identity = _identity(path)
        self.busy_waits = 0  # how often the write lock could not be had in time

    def write(self, body: Callable[[Connection], T]) -> T:
        """Run `body` in one transaction that holds the write lock from its start.

        `body` runs again from the start if the lock cannot be had in time, so it must change nothing but the database.

        Raises:
            DatabaseUnusable: locked for a minute, corrupt, read-only, or not a database.
            DiskFull: the volume of the database has no space left.
        """
        for wait in range(1, self._busy_waits + 1):
            try:
                with self._engine.begin() as connection:
                    result = body(connection)
            except sa.exc.IntegrityError:
                raise
            except (sa.exc.DBAPIError, sqlite3.Error) as e:
                is_busy = error_name(e).startswith("SQLITE_BUSY")
                self.busy_waits += is_busy
                if is_busy and wait < self._busy_waits:
                    logger.warning(
                        "%s is locked by another process, waiting (%d of %d)", self.path, wait, self._busy_waits
                    )
                    continue
                raise explained(e, self.path) from e
            else:
                self._restart_long_log()
                return result
        raise AssertionError("unreachable")

    def read(self, body: Callable[[Connection], T]) -> T:
        """Run `body` in one read transaction: a consistent view that blocks no writer.

        Raises:
            DatabaseUnusable: as `write`, or the tables are not those this version knows.
        """
        try:
            with self._reads.begin() as connection:
                return body(connection)
        except (sa.exc.DBAPIError, sqlite3.Error) as e:
            raise explained(e, self.path) from e

    def check_file(self) -> None:
        """Make sure that the file is still the one that was opened.

        SQLite keeps writing into a deleted file without any error, and everything written is lost.

        Raises:
            DatabaseUnusable: the file was deleted or replaced.
        """
        if _identity(self.path) != self._identity:
            raise DatabaseUnusable(
                f"{self.path} was deleted or replaced while it was in use; stop, put the file back and start again"
            )

    def _restart_long_log(self) -> None:
        """Move a long write-ahead log into the file and begin it anew: readers without a gap could make it grow.

        A log that cannot be had now is tried again later; what was written is safe in it all the same.
        """
        if not self._checkpoints or time.monotonic() < self._next_restart:
            return
        log = self.path.with_name(f"{self.path.name}-wal")
        try:
            if log.stat().st_size < LONG_LOG_BYTES:
                return
            self._next_restart = time.monotonic() + RESTART_EVERY_S
            with closing(self._engine.raw_connection()) as connection:
                (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
                connection.execute(f"PRAGMA busy_timeout = {RESTART_WAIT_S * 1e3:.0f}")
                try:
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").close()
                finally:
                    connection.execute(f"PRAGMA busy_timeout = {patience}")
        except (OSError, sqlite3.Error) as e:
            logger.warning("the write-ahead log %s stays long: %s", log, e)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def open_writer(
    path: Path, *, checkpoints: bool, timeout_s: float = BUSY_TIMEOUT_S, waits: int = BUSY_WAITS
) -> Database:
    """Open (and create) the file for reading and writing.

    Args:
        checkpoints: whether this process moves the write-ahead log into the file. One process does; SQLite before
            3.51.3 can corrupt the file when two checkpoint at once.
        timeout_s: one wait for the write lock.
        waits: waits before a transaction is given up.
    """
    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, timeout=timeout_s, check_same_thread=False),
        poolclass=sa.QueuePool,
    )

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is off; ours is below
        _switch_to_wal(connection, timeout_s)
        pragmas = ["synchronous = FULL", "foreign_keys = ON"]
        if not checkpoints:
            pragmas.append("wal_autocheckpoint = 0")
        if sys.platform == "darwin":
            pragmas.append("checkpoint_fullfsync = ON")  # fsync alone is not durable there
        _set_pragmas(connection, pragmas)

    def begin(connection: Connection) -> None:
        deferred = connection.get_execution_options().get("deferred", False)
        connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    try:
        with engine.connect():
            return Database(path, engine, checkpoints=checkpoints, busy_waits=waits)
    except (sa.exc.DBAPIError, sqlite3.Error) as e:
        raise explained(e, path) from e


def open_reader(path: Path) -> Database:
    """Open the file for reading only; nothing is created, not even SQLite's own side files.

    Raises:
        DatabaseUnusable: there is no such file.
    """
    if not path.is_file():
        raise missing(path)

    engine = sa.create_engine("sqlite://", creator=lambda: connect_read_only(path), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return Database(path, engine, busy_waits=1)


def quick_check(database: Database) -> None:
    """Let SQLite look for damage.

    Raises:
        DatabaseUnusable: it found some.
    """
    verdict = database.read(lambda c: c.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if verdict != "ok":
        raise corrupt(database.path, str(verdict))


def back_up(path: Path, target: Path) -> None:
    """Write a consistent copy of the database to `target`, whole or not at all.

    Raises:
        DatabaseUnusable, DiskFull: the copy could not be made.
    """
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(part),))
    except sqlite3.Error as e:
        raise explained(e, path) from e
    part.replace(target)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _switch_to_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Turn the write-ahead log on; two processes that do so at once find the file locked, without SQLite's own wait."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _set_pragmas(connection, ["journal_mode = WAL"])
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _set_pragmas(connection: sqlite3.Connection, pragmas: list[str]) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()

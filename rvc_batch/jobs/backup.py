"""A copy of the job database that can be put back: consistent, checked, durable, never over another file.

Copying the file of a running database with `cp` leaves out what is still in its write-ahead log. This asks SQLite
for a copy instead, while the daemon goes on working. It never touches audio: sources and results are plain files.

To restore: stop the daemon, put the copy in the place of state/jobs.sqlite3, remove the files of that name that end
in -wal and -shm, start the daemon.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from rvc_batch.db.engine import back_up, open_reader, quick_check
from rvc_batch.db.faults import missing
from rvc_batch.db.migrate import revision
from rvc_batch.errors import DatabaseUnusable, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs import durable

KEPT = 24  # of those the daemon makes by itself
_PREFIX, _SUFFIX = "jobs-", ".sqlite3"
_UNCHECKED = ".unchecked"


def default_target(home: Home, now: float) -> Path:
    """Return the name of a backup made now, in UTC, so that names sort by age."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    return home.backups / f"{_PREFIX}{stamp}{_SUFFIX}"


def make_backup(home: Home, target: Path) -> int:
    """Write a checked copy of the job database to `target` and return its size in bytes.

    Raises:
        SettingsInvalid: `target` exists, or its folder does not.
        DatabaseUnusable, DiskFull: the copy cannot be made, or is damaged.
        EnvironmentFault: the folder cannot be written.
    """
    if not home.database.is_file():
        raise missing(home.database)
    if target.parent == home.backups:
        home.backups.mkdir(exist_ok=True)
    if os.path.lexists(target):
        raise SettingsInvalid(f"{target} exists already; name another file, a backup replaces none")
    if not target.parent.is_dir():
        raise SettingsInvalid(f"there is no folder {target.parent}; create it or name a file elsewhere")
    unchecked = target.with_name(f".{target.name}.{os.getpid()}{_UNCHECKED}")
    try:
        back_up(home.database, unchecked)
        with closing(open_reader(unchecked)) as copy:
            quick_check(copy)
            if copy.read(revision) is None:
                raise DatabaseUnusable(f"the copy of {home.database} holds no tables; nothing was kept, try again")
        durable.sync_path(unchecked)
        durable.link_exclusively(unchecked, target)
        durable.sync_folder(target.parent)
        return target.stat().st_size
    except FileExistsError as e:
        raise SettingsInvalid(f"{target} exists already; name another file, a backup replaces none") from e
    except OSError as e:
        raise durable.environment_fault(e, target.parent) from e
    finally:
        for left in (unchecked, unchecked.with_name(unchecked.name + ".part")):
            left.unlink(missing_ok=True)


def backups(home: Home) -> list[Path]:
    """Return the backups in their usual folder, the newest last."""
    return sorted(home.backups.glob(f"{_PREFIX}*{_SUFFIX}"))


def back_up_if_due(home: Home, now: float, every_seconds: float) -> Path | None:
    """Make a backup if the newest is older than that, keep the newest `KEPT`; return the new one.

    Raises:
        as `make_backup`.
    """
    target = default_target(home, now)
    due = default_target(home, now - every_seconds).name
    kept = backups(home)
    if kept and due < kept[-1].name <= target.name:
        return None
    make_backup(home, target)
    for old in backups(home)[:-KEPT]:
        old.unlink(missing_ok=True)
    return target


def remove_left_copies(home: Home) -> None:
    """Remove the hidden copies of processes that were killed; those of a living process are its own."""
    for left in home.backups.glob(f".{_PREFIX}*{_UNCHECKED}*"):
        process = left.name.partition(_UNCHECKED)[0].rpartition(".")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            with suppress(OSError):  # it only takes up space
                left.unlink(missing_ok=True)

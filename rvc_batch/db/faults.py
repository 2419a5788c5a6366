"""What is wrong with a job database, as errors with a remedy. Knows the driver's errors, never SQLAlchemy's classes."""

from __future__ import annotations

from pathlib import Path

from rvc_batch.errors import DatabaseUnusable, DiskFull, RvcBatchError


def explained(error: Exception, path: Path) -> RvcBatchError:
    """Return an error of the driver, bare or wrapped by SQLAlchemy, as one sentence with a remedy."""
    name, text = error_name(error), str(getattr(error, "orig", None) or error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return DatabaseUnusable(f"{path} is locked by another process; close the program that has a write pending")
    if name.startswith("SQLITE_FULL"):
        return DiskFull(f"no space left for {path} ({text}); free some space")
    if name.startswith("SQLITE_CORRUPT"):
        return corrupt(path, text)
    if name.startswith("SQLITE_NOTADB"):
        return DatabaseUnusable(f"{path} is not a job database ({text}); move it aside and start again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
        return DatabaseUnusable(f"{path} cannot be used ({text}); check the volume and the permissions of its folder")
    return DatabaseUnusable(f"{path}: {text}")


def missing(path: Path) -> DatabaseUnusable:
    """Return the error for a database that is not there."""
    return DatabaseUnusable(f"there is no job database at {path}; `rvc-batch run` creates it")


def corrupt(path: Path, text: str) -> DatabaseUnusable:
    """Return the error for a database that SQLite found damaged."""
    return DatabaseUnusable(f"{path} is damaged ({text}); move it aside and put back the last backup, or start afresh")


def error_name(error: Exception) -> str:
    """Return SQLite's name of the error, such as SQLITE_BUSY; empty for other errors."""
    return getattr(getattr(error, "orig", error), "sqlite_errorname", "")

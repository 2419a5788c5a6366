"""Removes by itself what nobody needs any more: old sources, old rows, old logs, by age and by size.

What is removed when stands under `[retention]` in rvc-batch.toml; audio stays for ever unless it says otherwise. Never
removed is what a job that has not ended needs, be it in failed/ because its retry has not begun; and the row of a
failed job stays as long as its source lies in failed/, so that it can be retried. Results in outbox/ are the user's.

The age of a file counts from when it was put where it is (ctime), because its mtime is the producer's.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rvc_batch.config import RetentionSettings
from rvc_batch.home import Home
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.reading import Jobs

logger = logging.getLogger(__name__)

DAY_S, GB = 86_400.0, 1_000_000_000
ROWS_AT_ONCE = 500  # a deletion holds the write lock
ROTATED = re.compile(r".+\.\d+$")


@dataclass(frozen=True)
class Pruned:
    """How much was removed."""

    files: int = 0
    rows: int = 0
    logs: int = 0

    def __bool__(self) -> bool:
        return bool(self.files or self.rows or self.logs)


@dataclass(frozen=True)
class _Source:
    """A source with what lies beside it: settings file, AppleDouble partner, error text."""

    path: Path
    parts: tuple[Path, ...]
    size: int
    placed_at: float  # UTC epoch seconds


def prune(home: Home, queue: Queue, settings: RetentionSettings, now: float) -> Pruned:
    """Remove what the settings say; return how much it was.

    Raises:
        EnvironmentFault: the database cannot be used.
    """
    files = 0
    for base, days, gigabytes in (
        (home.processed, settings.processed_days, settings.processed_gb),
        (home.failed, settings.failed_days, settings.failed_gb),
    ):
        doomed = _doomed(list(_sources(base)), days=days, gigabytes=gigabytes, now=now)
        if doomed:
            files += queue.undisturbed(partial(_remove_unneeded, home, base, doomed))
    rows = _forget(home, queue, now - settings.history_days * DAY_S) if settings.history_days else 0
    logs = _remove_logs(home.logs, now - settings.logs_days * DAY_S) if settings.logs_days else 0
    pruned = Pruned(files, rows, logs)
    if pruned:
        logger.info("retention: %d sources, %d jobs, %d logs removed", files, rows, logs)
    return pruned


def _doomed(sources: list[_Source], *, days: float, gigabytes: float, now: float) -> list[_Source]:
    """Choose what is too old, then the oldest until the rest is small enough."""
    sources.sort(key=lambda source: (source.placed_at, source.path))
    excess = sum(source.size for source in sources) - gigabytes * GB
    chosen = []
    for source in sources:
        is_old = bool(days) and source.placed_at < now - days * DAY_S
        is_too_much = bool(gigabytes) and excess > 0
        if is_old or is_too_much:
            chosen.append(source)
            excess -= source.size
    return chosen


def _remove_unneeded(home: Home, base: Path, doomed: list[_Source], active: Jobs) -> int:
    needed = {name for job in active for name in _names(base, job)} if base == home.failed else set()
    return sum(_remove(base, source) for source in doomed if source.path not in needed)


def _names(base: Path, job: Job) -> Iterable[Path]:
    """Return every place below `base` where the source of a job may lie; it is numbered where names collided."""
    place = base / os.fsdecode(job.source_rel)
    is_numbered: Callable[[str], object] = re.compile(
        re.escape(place.stem) + r"( \(\d+\))?" + re.escape(place.suffix)
    ).fullmatch
    try:
        return [path for path in place.parent.iterdir() if is_numbered(path.name)]
    except OSError:
        return ()


def _sources(base: Path) -> Iterator[_Source]:
    """Yield the sources below a folder; links are neither followed nor touched."""
    for folder, _, names in os.walk(base):
        there = {name: found for name in names if (found := _regular(Path(folder, name))) is not None}
        beside = {part: name for name in there for part in _beside(name) if part in there}
        for name in there:
            if name not in beside:
                parts = [name, *(part for part, of in beside.items() if of == name)]
                yield _Source(
                    path=Path(folder, name),
                    parts=tuple(Path(folder, part) for part in parts),
                    size=sum(there[part].st_size for part in parts),
                    placed_at=max(there[part].st_ctime for part in parts),
                )


def _beside(name: str) -> tuple[str, ...]:
    return f"{name}.toml", f"._{name}", f"{name}.error.txt"


def _regular(path: Path) -> os.stat_result | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _remove(base: Path, source: _Source) -> bool:
    try:
        for part in reversed(source.parts):  # the audio last: a crash leaves nothing without it
            part.unlink(missing_ok=True)
    except OSError as e:
        logger.warning("%s cannot be removed: %s", source.path, e)
        return False
    for folder in source.path.parents:
        if folder == base:
            break
        try:
            folder.rmdir()
        except OSError:  # not empty
            break
    return True


def _forget(home: Home, queue: Queue, before: float) -> int:
    queue.forget_workers(before)
    forgotten, last = 0, 0
    while found := queue.ended_before(before, after=last, limit=ROWS_AT_ONCE):
        last = found[-1].id
        forgotten += queue.forget([job.id for job in found if not _can_be_retried(home, job)])
    return forgotten


def _can_be_retried(home: Home, job: Job) -> bool:
    return job.state in (JobState.FAILED, JobState.CANCELLED) and any(_names(home.failed, job))


def _remove_logs(folder: Path, before: float) -> int:
    """Remove rotated logs; the one that is written to stays."""
    removed = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = _regular(path)
        if found is not None and ROTATED.match(path.name) and found.st_mtime < before:
            path.unlink(missing_ok=True)
            removed += 1
    return removed

"""Where the source of a job is: in state/work/<public id>/ while the job lives, then in processed/ or failed/.

A source is never deleted unless `keep_sources` is off and its job is done. What lies beside it (settings file,
AppleDouble partner) goes where it goes. A failed source gets an `.error.txt`; retrying its job brings it back from
there.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rvc_batch.errors import EnvironmentFault, SourceGone
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs.failpoints import (
    SOURCE_COMPLETE,
    SOURCE_EXPLAINED,
    SOURCE_PLACED,
    SOURCE_REMOVED,
    failpoint,
)
from rvc_batch.jobs.models import TERMINAL, Job, JobState
from rvc_batch.jobs.output_names import candidates, display_name, variant_name

logger = logging.getLogger(__name__)

RECORD = "job.json"  # in the work folder: which job it belongs to, and where its source came from
MAX_NUMBERED = 100  # how many "name (n)" to look at when a failed source is brought back


class Sources:
    """The work folders and where sources go from there."""

    def __init__(self, home: Home, *, keep_sources: bool, check_inbox: Callable[[], None] = lambda: None) -> None:
        self._home = home
        self.check_inbox = check_inbox  # raises FolderGone while the inbox is not there
        self.keep_sources = keep_sources
        self._moving = threading.Lock()  # the watcher's thread and the supervisor's both settle

    def folder(self, job: Job) -> Path:
        """Return the work folder of a job."""
        return self._home.work / job.public_id

    def path(self, job: Job) -> Path:
        """Return where the source is while the job lives: under its own name, as far as that is text.

        Audio libraries cannot open names that are not.
        """
        return self.folder(job) / _work_name(job.source_rel)

    def open_folders(self, jobs: Sequence[Job], *, variants: Collection[int] = ()) -> None:
        """Create work folders, each with the record of whose it is.

        Args:
            variants: numbers of the jobs that share their source with others (`is_variant`).

        Folders and records are durable when it returns; the name of a record is with the next sync of its folder.
        """
        records = []
        for job in jobs:
            folder = self.folder(job)
            folder.mkdir(exist_ok=True)
            record: dict[str, Any] = {"id": job.id, "public_id": job.public_id}
            record["source_rel"] = os.fsdecode(job.source_rel)
            if job.id in variants:
                record["variant"] = True
            records.append(folder / RECORD)
            durable.write_whole(records[-1], json.dumps(record).encode(), durable=False)
        durable.sync_all(files=records, folders=[self._home.work])

    def is_variant(self, job: Job) -> bool:
        """Say whether a job is one of several of one file, by the record in its work folder."""
        record = _record(self.folder(job))
        return record is not None and bool(record.get("variant"))

    def fetch(self, job: Job) -> Path:
        """Return the source of a job that is about to run; that of a retried job comes back from failed/.

        Raises:
            SourceGone: it is neither in its work folder nor in failed/.
        """
        path = self.path(job)
        if not path.is_file() and not self._bring_back(job, path):
            raise SourceGone(
                f"the source of job {job.id} is not in {path.parent} and not in {self._home.failed}; drop it again"
            )
        return path

    def set_aside(self, job: Job) -> Path | None:
        """Return where in failed/ the source of a job lies, recognised by its content, or None."""
        return _by_content(self._home.failed, job)

    def look_up(self, job: Job) -> Path | None:
        """Return where the source of a job is now, whatever became of the job, or None."""
        path = self.path(job)
        if path.is_file():
            return path
        return _by_content(self._home.processed, job) or self.set_aside(job)

    def settle(self, job: Job) -> None:
        """Move the source of a job that has ended to where the user finds it. Can be repeated.

        Where processed/ or failed/ cannot be written it stays in its work folder, and `sweep` tries again.
        """
        assert job.state in TERMINAL, f"job {job.id} is {job.state}"
        try:
            with self._moving:
                self._settle(job)
        except OSError as e:
            logger.error("job %d: its source stays in %s for now: %s", job.id, self.folder(job), e)

    def sweep(self, find: Callable[[int], Job | None], *, at_work: Collection[str] = ()) -> None:
        """Settle the sources of jobs that ended without it: cancelled while queued, or the daemon died in between.

        Args:
            find: the job of a number, or None.
            at_work: public ids of jobs that have not ended; their folders, of which there may be many, are passed over.
        """
        for folder in sorted(self._home.work.iterdir()):
            record = None if folder.name in at_work else _record(folder)
            if record is None:
                continue
            job = find(record["id"])
            if job is None or job.public_id != record["public_id"]:
                try:
                    self._return_to_inbox(folder, os.fsencode(record["source_rel"]))
                except (EnvironmentFault, OSError) as e:
                    logger.error("%s belongs to no job and stays for now: %s", folder, e)
            elif job.state in TERMINAL:
                self.settle(job)

    def tidy(self) -> None:
        """Remove work folders that were being made or removed when a daemon died; only while nobody makes one."""
        for folder in sorted(self._home.work.iterdir()):
            is_ours = folder.is_dir() and not folder.is_symlink()
            if is_ours and all(p.name.startswith(".") and p.name.endswith(".part") for p in folder.iterdir()):
                shutil.rmtree(folder)

    def _settle(self, job: Job) -> None:
        folder, source = self.folder(job), self.path(job)
        is_failed = job.state in (JobState.FAILED, JobState.CANCELLED)
        if os.path.lexists(source) and (is_failed or self.keep_sources):
            base = self._home.failed if is_failed else self._home.processed
            target = durable.make_folders(base, Path(os.fsdecode(job.source_rel)).parent)
            name = _own_name(job.source_rel)
            if is_failed and self.is_variant(job):
                name = _variant_name(job)  # the sources of its siblings are moved and retried apart from it
            placed = durable.place(source, target, name)
            failpoint(SOURCE_PLACED)
            if is_failed:
                _write_error(placed, job)
                failpoint(SOURCE_EXPLAINED)
            for companion in companions(folder, source.name):
                durable.place(companion, target, renamed(companion.name, source.name, placed.name))
            failpoint(SOURCE_COMPLETE)
            logger.info("job %d: source is in %s", job.id, placed)
        if folder.is_dir():
            _remove(folder)
            failpoint(SOURCE_REMOVED)

    def _return_to_inbox(self, folder: Path, source_rel: bytes) -> None:
        """Give a source whose job is unknown (the database was deleted) to the watcher again."""
        self.check_inbox()
        target = durable.make_folders(self._home.inbox, Path(os.fsdecode(source_rel)).parent)
        source = folder / _work_name(source_rel)
        if os.path.lexists(source):
            name = _own_name(source_rel)
            for companion in companions(folder, source.name):
                durable.place(companion, target, renamed(companion.name, source.name, name))
            placed = durable.place(source, target, name)
            logger.warning("no job for %s: it goes back to the inbox as %s", source, placed)
        _remove(folder)

    def _bring_back(self, job: Job, path: Path) -> bool:
        found = self.set_aside(job)
        if found is None:
            return False
        is_variant = any(found.name == os.fsdecode(name) for name in _numbered(_variant_name(job)))
        self.open_folders([job], variants=[job.id] if is_variant else [])
        for companion in companions(found.parent, found.name):
            durable.link_or_copy(companion, path.with_name(renamed(companion.name, found.name, path.name)))
            companion.unlink()
        durable.link_or_copy(found, path)
        durable.sync_folder(path.parent)
        found.unlink()
        _error_file(found).unlink(missing_ok=True)
        return True


def _by_content(base: Path, job: Job) -> Path | None:
    """Return the file below `base` that has the name of the source, or a numbered one, and its content."""
    folder = base / Path(os.fsdecode(job.source_rel)).parent
    names = (*_numbered(_variant_name(job)), *_numbered(_own_name(job.source_rel)))
    for name in map(os.fsdecode, names):
        try:
            if durable.digest(folder / name)[0] == job.content_sha256:
                return folder / name
        except OSError:
            continue
    return None


def _numbered(name: str) -> Iterator[bytes]:
    return itertools.islice(candidates(os.fsencode(name)), MAX_NUMBERED)


def companions(folder: Path, name: str) -> list[Path]:
    """Return the regular files that belong to a source: its settings file and its AppleDouble partner."""
    return [path for path in (folder / n for n in _companion_names(name)) if _is_regular(path)]


def _companion_names(name: str) -> tuple[str, str]:
    return f"{name}.toml", f"._{name}"


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # not there, or the name is too long to be
        return False


def renamed(companion: str, old: str, new: str) -> str:
    """Return the name of a companion after its source was renamed from `old` to `new`."""
    return _companion_names(new)[_companion_names(old).index(companion)]


def _remove(folder: Path) -> None:
    """Remove a work folder; the record goes last, because without it nobody would know whose the rest is."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != RECORD:
            path.unlink()
    (folder / RECORD).unlink(missing_ok=True)
    folder.rmdir()


def _own_name(source_rel: bytes) -> str:
    return Path(os.fsdecode(source_rel)).name


def _variant_name(job: Job) -> str:
    return os.fsdecode(variant_name(os.fsencode(_own_name(job.source_rel)), job.voice))


def _work_name(source_rel: bytes) -> str:
    text = display_name(os.fsencode(_own_name(source_rel)))
    return os.fsdecode(next(candidates(text.encode())))


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        logger.debug("%s holds no %s; it is left alone", folder, RECORD)
        return None
    return record


def _error_file(placed: Path) -> Path:
    name = next(candidates(os.fsencode(placed.name + ".error.txt")))
    return placed.with_name(os.fsdecode(name))


def _write_error(placed: Path, job: Job) -> None:
    if job.state is JobState.CANCELLED:
        text = "E_CANCELLED\n\nThis job was cancelled.\n"
    elif job.error is None:
        text = "E_INTERNAL\n\nThis job failed without a recorded reason.\n"
    else:
        text = f"{job.error.code}\n\n{job.error.message}\n"
    text += f"\nTo try again: rvc-batch retry {job.id}\nMore: rvc-batch job {job.id}\n"
    durable.write_whole(_error_file(placed), text.encode("utf-8", "backslashreplace"), durable=False)

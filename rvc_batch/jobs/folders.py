"""Are inbox and outbox the folders they were, or the empty places where a volume used to be?

An inbox on a network or USB volume leaves a mount point behind when it is unmounted: an empty folder on the boot disk.
Taken for the inbox it would look as if nothing were to do; taken for the outbox it would swallow results. So
state/folders.json remembers which of the two was on a volume of its own, and that one carries a mark
(`.rvc-batch-inbox`; in the outbox the folder of temporary files). It counts only on another volume than the home, and
with its mark; its place is never filled with a new folder. Device numbers are compared, never stored: they change
when the machine starts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from pathlib import Path

from rvc_batch.errors import FolderGone, HomeInvalid
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs.publish import TEMP_FOLDER

logger = logging.getLogger(__name__)

INBOX_MARK = ".rvc-batch-inbox"
RECORD = "folders.json"


class Folders:
    """The folders of one home that may be volumes of their own.

    Args:
        home: the render box.
        marks: whether to mark and remember what is found; without it nothing is written.
    """

    def __init__(self, home: Home, *, marks: bool = True) -> None:
        self._home, self._marks = home, marks
        self._record = home.state / RECORD
        self._volumes = _read(self._record)

    def create(self) -> None:
        """Create what is missing of the home, except where a volume belongs.

        Raises:
            HomeInvalid: a folder cannot be created, or one lies inside another.
        """
        self._home.create(except_=[f for f in (self._home.inbox, self._home.outbox) if self._is_place_of_volume(f)])
        refuse_overlap(self._home)
        for check in (self.check_inbox, self.check_outbox):
            with contextlib.suppress(FolderGone):  # said again by whoever needs it
                check()

    def check_inbox(self) -> None:
        """Make sure that the inbox is there.

        Raises:
            FolderGone: it is missing, or is not the one it was.
        """
        self._check(self._home.inbox, self._home.inbox / INBOX_MARK)

    def check_outbox(self) -> None:
        """Make sure that the outbox is there.

        Raises:
            FolderGone: it is missing, or is not the one it was.
        """
        self._check(self._home.outbox, self._home.outbox / TEMP_FOLDER)

    def _check(self, folder: Path, mark: Path) -> None:
        try:
            is_volume = folder.stat().st_dev != self._home.root.stat().st_dev
        except OSError as e:
            raise FolderGone(
                f"{folder} is missing ({e.strerror}); mount its volume, under the same name as before, or create the "
                "folder; work resumes by itself"
            ) from e
        was_volume, is_marked = self._volumes.get(folder.name, False), os.path.lexists(mark)
        if was_volume and not (is_volume and is_marked):
            what = f"is another volume than it was ({mark.name} is missing)" if is_volume else "is not mounted"
            raise FolderGone(
                f"the volume of {folder} {what}; mount it and work resumes by itself, or remove {self._record} and "
                "start again if this folder is to be used from now on"
            )
        if not self._marks:
            return
        if is_volume and not is_marked:
            _put(mark)
        if self._volumes.get(folder.name) != is_volume:
            self._volumes[folder.name] = is_volume
            _write(self._record, self._volumes)

    def _is_place_of_volume(self, folder: Path) -> bool:
        return folder.is_symlink() or self._volumes.get(folder.name, False)


def refuse_overlap(home: Home) -> None:
    """Make sure that no folder of files lies inside another, by way of links: results would come back as sources.

    Raises:
        HomeInvalid: two are one, or one is inside another.
    """
    places = {f: f.resolve() for f in (home.inbox, home.outbox, home.processed, home.failed, home.state)}
    for (one, place), (other, base) in itertools.permutations(places.items(), 2):
        if place.is_relative_to(base):
            how = "is the same folder as" if place == base else "lies inside"
            raise HomeInvalid(f"{one} ({place}) {how} {other} ({base}); give each a folder of its own")


def _put(mark: Path) -> None:
    try:
        if mark.name == TEMP_FOLDER:
            mark.mkdir(exist_ok=True)
        else:
            mark.touch()
        durable.sync_folder(mark.parent)
    except OSError as e:
        logger.warning("%s cannot be marked as ours: %s", mark.parent, e.strerror)


def _read(record: Path) -> dict[str, bool]:
    try:
        return {str(name): bool(is_volume) for name, is_volume in json.loads(record.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as e:
        logger.warning("%s cannot be read (%s); it is written anew", record, e)
        return {}


def _write(record: Path, volumes: dict[str, bool]) -> None:
    try:
        durable.write_whole(record, json.dumps(volumes).encode(), durable=True)
    except OSError as e:
        logger.warning("%s cannot be written: %s", record, e.strerror)

"""Watches the inbox: events are hints, a look at the whole inbox is the truth.

Events of the operating system can be lost, and the thread that delivers them can die without a word; so they only
wake the next look. Looks come every second while a file settles and every `rescan_seconds` otherwise; the first one
at start-up uses the same rule. This is the only file that imports watchdog.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from rvc_batch.config import WatchSettings
from rvc_batch.engine import containers
from rvc_batch.engine.media_kinds import has_media
from rvc_batch.errors import EnvironmentFault, InputEmpty, InputUnreadable, RvcBatchError, SourceChanged, SourceGone
from rvc_batch.jobs import durable
from rvc_batch.jobs.arrival import ArrivalRule, Complete, Inspection, Judgement, Look, Track, Verdict, judge
from rvc_batch.jobs.listing import Listing, list_inbox
from rvc_batch.jobs.models import Arrival, ArrivalVerdict, Job
from rvc_batch.jobs.output_names import display_name
from rvc_batch.jobs.volumes import is_network

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between looks while a file settles; shorter where the settle time is
NETWORK_SETTLE_SECONDS = 10.0  # size and times travel slowly over a share
READY = (Verdict.INSPECT, Verdict.ACCEPT, Verdict.EMPTY, Verdict.TRUNCATED)  # to be taken, one way or another
DRAINING = "the box drains: nothing new is taken until `rvc-batch resume`"
MAX_ARRIVALS = 1000  # of those shown
GROUP_FILES, GROUP_BYTES = 256, 64_000_000  # taken together; more would keep the first of them waiting


class Intake(Protocol):
    """What takes complete files (`jobs.ingest.Ingest`)."""

    def resume(self) -> None: ...
    def accept_all(self, files: Sequence[Complete]) -> list[Job | RvcBatchError]: ...
    def refuse(self, rel: bytes, look: Look, error: RvcBatchError) -> Job: ...


class ArrivalBoard(Protocol):
    """Where the files that are no jobs yet are shown, and whether new ones may be taken (`jobs.queue.Queue`)."""

    def is_draining(self) -> bool: ...
    def replace_arrivals(self, found: list[Arrival]) -> None: ...


@dataclass(frozen=True)
class WatcherStatus:
    """What the heartbeat file says of the watcher."""

    inbox: str
    mode: str
    last_rescan_at: float | None
    error: str


class Watcher:
    """Follows the files of the inbox until each is a job."""

    def __init__(
        self,
        inbox: Path,
        settings: Callable[[], WatchSettings],
        *,
        intake: Intake,
        board: ArrivalBoard,
        check_inbox: Callable[[], None] = lambda: None,
        on_taken: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._inbox, self._settings = inbox, settings
        self._intake, self._board, self._on_taken = intake, board, on_taken
        self._check_inbox = check_inbox
        self._monotonic, self._wall = monotonic, wall
        self._tracks: dict[bytes, Track] = {}
        self._judgements: dict[bytes, Judgement] = {}
        self._hints = Hints(inbox)
        self._stop = threading.Event()
        self._last_look: float | None = None
        self._shown: list[tuple[bytes, str]] | None = None
        self._error = ""
        self._is_closed = False  # the box drains: what is ready stays where it is

    def run(self) -> None:
        """Look until `stop` is called."""
        checked = float("-inf")
        while not self._stop.is_set():
            now = self._monotonic()
            if now - checked >= self._settings().rescan_seconds:
                self._hints.ensure()
                checked = now
            self.look()
            interval = self._interval()
            is_watching = self.is_expecting or self._is_closed
            self._hints.wait(interval if is_watching else self._settings().rescan_seconds)
            self._stop.wait(interval - (self._monotonic() - now))  # a storm of events is one look
        self._hints.close()

    def stop(self) -> None:
        """Take no more files; `run` returns after the present one."""
        self._stop.set()
        self._hints.wake()

    @property
    def is_expecting(self) -> bool:
        """Is a file on its way to become a job? False before the first look only if nothing went wrong."""
        waiting = not self._is_closed and any(j.verdict is not Verdict.UNREADABLE for j in self._judgements.values())
        return waiting or self._last_look is None or bool(self._error)

    def status(self) -> WatcherStatus:
        """Return what the heartbeat file says."""
        return WatcherStatus(str(self._inbox), self._hints.mode, self._last_look, self._error)

    def look(self) -> None:
        """Look at the whole inbox once and take every file that is complete."""
        error = ""
        try:
            self._check_inbox()
            listing = list_inbox(self._inbox, depth=self._settings().depth)
            self._follow(listing, self._monotonic())
            self._intake.resume()
            self._is_closed = self._board.is_draining()
            if self._is_closed:
                self._hold_back()
            else:
                self._take_complete()
            self._show(listing)
        except OSError as e:
            error = f"inbox {self._inbox} cannot be read ({e.strerror}); it is looked for every "
            error += f"{self._settings().rescan_seconds:g} s"
        except EnvironmentFault as e:
            error = str(e)
        if error and error != self._error:
            logger.error("%s", error)
        elif self._error and not error:
            logger.info("inbox %s is well again", self._inbox)
        self._error = error
        self._last_look = self._wall()

    def _follow(self, listing: Listing, now: float) -> None:
        old = self._tracks
        self._tracks = {
            rel: old[rel].seen(look, now) if rel in old else Track.start(look, now)
            for rel, look in listing.candidates.items()
        }
        rule = self._rule()
        self._judgements = {rel: judge(track, now, rule) for rel, track in self._tracks.items()}

    def _take_complete(self) -> None:
        """Take what is ready, the longest known first, in groups; one bad file never holds up the others."""
        ready = [rel for rel, judgement in self._judgements.items() if judgement.verdict in READY]
        ready.sort(key=lambda rel: (self._tracks[rel].first_seen, rel))
        group, size = list[Complete](), 0
        for rel in ready:
            if self._stop.is_set():
                return
            complete = self._look_inside(rel)
            if complete is not None:
                group.append(complete)
                size += complete.look.size
            if len(group) == GROUP_FILES or size >= GROUP_BYTES:
                self._hand_over(group)
                group, size = [], 0
        self._hand_over(group)

    def _hold_back(self) -> None:
        for rel, judgement in self._judgements.items():
            if judgement.verdict in READY:
                self._judgements[rel] = Judgement(Verdict.SETTLING, DRAINING)

    def _look_inside(self, rel: bytes) -> Complete | None:
        """Look inside a settled file; return it if it is complete, refuse it if it will never be."""
        now, track = self._monotonic(), self._tracks[rel]
        try:
            if track.inspection is None and track.look.size:
                track = track.inspected(self._inspect(rel, track.look))
            judgement = judge(track, now, self._rule())
            self._tracks[rel], self._judgements[rel] = track, judgement
            container = track.inspection.container if track.inspection else None
            if judgement.verdict is Verdict.ACCEPT:
                assert container is not None
                return Complete(rel, track.look, container)
            if judgement.verdict is Verdict.TRUNCATED:
                assert container is not None
                self._note(
                    rel, self._intake.refuse(rel, track.look, containers.truncated(display_name(rel), container))
                )
            elif judgement.verdict is Verdict.EMPTY:
                empty = InputEmpty(f"{display_name(rel)} has zero bytes; copy it again")
                self._note(rel, self._intake.refuse(rel, track.look, empty))
        except (SourceChanged, SourceGone, InputUnreadable) as e:
            self._note(rel, e)
        return None

    def _hand_over(self, group: list[Complete]) -> None:
        if group:
            for file, outcome in zip(group, self._intake.accept_all(group), strict=True):
                self._note(file.rel, outcome)
            self._on_taken()

    def _note(self, rel: bytes, outcome: Job | RvcBatchError) -> None:
        """Stop following a file that was taken or is gone; go on with one that could not be taken."""
        now, track = self._monotonic(), self._tracks[rel]
        if isinstance(outcome, SourceChanged):
            logger.debug("%s: %s", display_name(rel), outcome)
            self._tracks[rel] = track.restarted(now)
        elif isinstance(outcome, InputUnreadable):
            logger.warning("%s", outcome)
            self._tracks[rel] = track.inspected(Inspection(unreadable=str(outcome)))
            self._judgements[rel] = judge(self._tracks[rel], now, self._rule())
        else:
            assert isinstance(outcome, Job | SourceGone), repr(outcome)
            del self._tracks[rel], self._judgements[rel]

    def _inspect(self, rel: bytes, look: Look) -> Inspection:
        """Look inside a settled file, without following a link or waiting for a FIFO.

        Raises:
            SourceChanged: it is not the file that was looked at.
        """
        try:
            fd = os.open(self._inbox / os.fsdecode(rel), durable.READ_ONLY)
        except FileNotFoundError as e:
            raise SourceGone(f"{display_name(rel)} is gone") from e
        except OSError as e:
            return Inspection(unreadable=f"cannot be opened ({e.strerror}); make it readable for the service")
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or (found.st_ino, found.st_size) != (look.inode, look.size):
                raise SourceChanged(f"{display_name(rel)} changed; it settles again")
            try:
                return Inspection(container=containers.inspect(file, look.size))
            except OSError as e:
                return Inspection(unreadable=f"cannot be read ({e.strerror}); check the volume")

    def _show(self, listing: Listing) -> None:
        """Store what is waiting or left alone, and why, if that changed."""
        now, wall = self._monotonic(), self._wall()
        found = [
            Arrival(
                path=rel,
                first_seen=wall - (now - track.first_seen),
                last_change=wall - (now - track.since),
                size=track.look.size,
                verdict=_shown_verdict(self._judgements[rel].verdict),
                reason=self._judgements[rel].reason,
            )
            for rel, track in self._tracks.items()
        ]
        for p in listing.passed:
            verdict = ArrivalVerdict.UNREADABLE if p.is_unreadable else ArrivalVerdict.IGNORED
            reason = p.reason if p.is_unreadable else f"ignored: {p.reason}"
            found.append(
                Arrival(path=p.rel, first_seen=wall, last_change=wall, size=p.size, verdict=verdict, reason=reason)
            )
        found = found[:MAX_ARRIVALS]
        content = [(a.path, f"{a.size} {a.verdict} {a.reason}") for a in found]
        if content != self._shown:
            self._board.replace_arrivals(found)
            self._shown = content

    def _rule(self) -> ArrivalRule:
        settings = self._settings()
        settle = settings.settle_seconds
        if self._hints.mode == POLLING:
            settle = max(settle, NETWORK_SETTLE_SECONDS)
        return ArrivalRule(
            settle_seconds=settle,
            truncated_after_seconds=settings.truncated_after_seconds,
            max_bytes=int(settings.max_gb * 1e9),
            has_media=has_media(),
        )

    def _interval(self) -> float:
        return min(LOOK_SECONDS, self._settings().settle_seconds / 2)


def _shown_verdict(verdict: Verdict) -> ArrivalVerdict:
    if verdict is Verdict.INCOMPLETE:
        return ArrivalVerdict.INCOMPLETE
    return ArrivalVerdict.UNREADABLE if verdict is Verdict.UNREADABLE else ArrivalVerdict.SETTLING


# ---------------------------------------------------------------------------------------------------------------------
# Hints

EVENTS, POLLING, MISSING = "events and rescan", "rescan (network volume)", "rescan"


class Hints:
    """Wakes the watcher when something happens in the inbox; nobody relies on it."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._event = threading.Event()
        self._observer: Any = None
        self._identity: tuple[int, int] | None = None
        self.mode = POLLING if is_network(inbox) else MISSING

    def wait(self, seconds: float) -> None:
        """Wait for a hint, at most this long."""
        self._event.wait(seconds)
        self._event.clear()

    def wake(self) -> None:
        """Give a hint."""
        self._event.set()

    def ensure(self) -> None:
        """Build the observer again if the inbox was deleted, recreated or remounted, or if one of its threads died."""
        identity = _identity(self._inbox)
        alive = self._observer is not None and self._observer.is_alive()
        if alive and identity == self._identity and all(e.is_alive() for e in self._observer.emitters):
            return
        self.close()
        if identity is None:
            self.mode = MISSING
        elif is_network(self._inbox):
            self.mode = POLLING
        else:
            self._build(identity)

    def close(self) -> None:
        """Stop the observer."""
        observer, self._observer, self._identity = self._observer, None, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join()

    def _build(self, identity: tuple[int, int]) -> None:
        wanted = [DirCreatedEvent, DirMovedEvent, FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileClosedEvent]
        observer = Observer()
        try:
            observer.schedule(_Waker(self.wake), str(self._inbox), recursive=True, event_filter=wanted)
            observer.start()
        except OSError as e:  # the system's limit of watches, or the inbox vanished again
            logger.warning("no events for %s (%s); it is looked at in intervals", self._inbox, e.strerror)
            self.mode = MISSING
            return
        self._observer, self._identity, self.mode = observer, identity, EVENTS
        self.wake()


class _Waker(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._wake()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

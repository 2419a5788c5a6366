"""Is this file complete? The arrival rule as pure functions: looks and a clock in, a verdict out.

A file is accepted when it did not change between two looks that lie the settle time apart, and its container agrees
with its size. The rule never asks how old a file is, so copies that keep old (or future) times are judged like any
other, and the clock is monotonic. Nothing here opens, stats or lists a file; `jobs.watcher` does that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from rvc_batch.engine.containers import Completeness, Container
from rvc_batch.engine.media_kinds import INSTALL_MEDIA

# Finder gives a file one of these creation dates while it copies: kMagicBusyCreationDate, or the Mac's birthday.
FINDER_BUSY_DATES = (-753_549_904.0, 443_779_200.0)  # 1946-02-14 and 1984-01-24, UTC epoch seconds
FINDER_BUSY_TOLERANCE = 86_400.0  # written in local time by some versions
DATALESS_FLAG = 0x40000000  # macOS SF_DATALESS: reading would download the file first
BUSY_SIBLINGS = (b".part", b".crdownload", b".aria2")  # a downloader is still at work on the name without it


class Verdict(StrEnum):
    """What to do with a file now."""

    SETTLING = "settling"  # wait: it may still change
    INSPECT = "inspect"  # it has settled: look inside once, then ask again
    INCOMPLETE = "incomplete"  # wait: the container promises more
    UNREADABLE = "unreadable"  # wait: it cannot be opened, is too large, or needs what is not installed
    ACCEPT = "accept"
    EMPTY = "empty"  # give up: zero bytes for a minute
    TRUNCATED = "truncated"  # give up: short, and unchanged for ten minutes


@dataclass(frozen=True, kw_only=True)
class ArrivalRule:
    """How long to wait, in seconds."""

    settle_seconds: float = 3.0
    truncated_after_seconds: float = 600.0
    empty_after_seconds: float = 60.0
    max_bytes: int = 100_000_000_000  # a sparse file can claim to be a petabyte, and hashing it would take for ever
    has_media: bool = True  # PyAV is installed, so that what only it can decode may be taken
    zero_tail_factor: float = 10.0  # × settle_seconds: a pre-allocated copy is zeros at its end until it is done


@dataclass(frozen=True, kw_only=True)
class Look:
    """What `lstat` said; two equal looks mean an unchanged file. ctime catches copies that restore size and mtime."""

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    birthtime: float | None = None  # UTC epoch seconds, where the system knows it
    flags: int = 0
    sibling: bytes | None = None  # name of a downloader's file beside it
    sidecar: tuple[int, int, int] | None = None  # size, mtime and inode of its settings file, which must settle too


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found inside a settled file: its container, or why it cannot be opened."""

    container: Container | None = None
    unreadable: str = ""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One file over time. `since` is when the present look was first taken, on the monotonic clock."""

    look: Look
    since: float
    first_seen: float
    inspection: Inspection | None = field(default=None)

    @classmethod
    def start(cls, look: Look, now: float) -> Self:
        """Begin to follow a file."""
        return cls(look=look, since=now, first_seen=now)

    def seen(self, look: Look, now: float) -> Self:
        """Take another look; a change starts the wait again and forgets what was found inside."""
        return self if look == self.look else replace(self, look=look, since=now, inspection=None)

    def inspected(self, inspection: Inspection) -> Self:
        """Remember what was found inside; valid until the next change."""
        return replace(self, inspection=inspection)

    def restarted(self, now: float) -> Self:
        """Wait the whole settle time again: the file changed under a reader."""
        return replace(self, since=now, inspection=None)


@dataclass(frozen=True)
class Complete:
    """A file that is to become a job, by its path below the inbox."""

    rel: bytes
    look: Look
    container: Container


@dataclass(frozen=True)
class Judgement:
    """A verdict and, in words for the status display, why."""

    verdict: Verdict
    reason: str


def judge(track: Track, now: float, rule: ArrivalRule) -> Judgement:
    """Apply the arrival rule to one file at monotonic time `now`."""
    look, unchanged = track.look, now - track.since
    busy = _busy(look)
    if busy:
        return Judgement(Verdict.SETTLING, busy)
    if look.size > rule.max_bytes:
        limit = f"{rule.max_bytes / 1e9:g} GB"
        return Judgement(
            Verdict.UNREADABLE, f"too large: {look.size / 1e9:,.0f} GB, the limit is {limit} (watch.max_gb)"
        )
    if look.size == 0:
        if unchanged < rule.empty_after_seconds:
            return Judgement(Verdict.SETTLING, "still empty")
        return Judgement(Verdict.EMPTY, "zero bytes")
    if unchanged < rule.settle_seconds:
        return Judgement(Verdict.SETTLING, f"changed in the last {rule.settle_seconds:g} s")
    if track.inspection is None:
        return Judgement(Verdict.INSPECT, "settled")
    if track.inspection.unreadable:
        return Judgement(Verdict.UNREADABLE, track.inspection.unreadable)
    return _judge_content(track.inspection.container, unchanged, rule)


def _judge_content(container: Container | None, unchanged: float, rule: ArrivalRule) -> Judgement:
    assert container is not None, "an inspection has a container or a reason"
    if container.needs_media and not rule.has_media:
        return Judgement(Verdict.UNREADABLE, f"{container.kind} needs PyAV: {INSTALL_MEDIA}")
    if container.completeness is Completeness.SHORT:
        if unchanged < rule.truncated_after_seconds:
            return Judgement(Verdict.INCOMPLETE, container.shortfall)
        return Judgement(Verdict.TRUNCATED, container.shortfall)
    zero_wait = rule.settle_seconds * rule.zero_tail_factor
    if container.zero_tail and unchanged < zero_wait:
        return Judgement(Verdict.SETTLING, f"ends in zeros, as a copy in progress may; waiting {zero_wait:g} s")
    return Judgement(Verdict.ACCEPT, "complete")


def _busy(look: Look) -> str:
    if look.flags & DATALESS_FLAG:
        return "stored in the cloud, not on this disk"
    if look.birthtime is not None and any(abs(look.birthtime - d) < FINDER_BUSY_TOLERANCE for d in FINDER_BUSY_DATES):
        return "Finder is still copying it"
    if look.sibling is not None:
        return f"a download is in progress: {look.sibling.decode(errors='replace')} is beside it"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Names that are never audio, whatever they end in.

IGNORED_SUFFIXES = (
    b".part", b".partial", b".crdownload", b".download", b".tmp", b".temp", b".filepart", b".opdownload", b".aria2",
    b".!ut", b".icloud",
)  # fmt: skip
IGNORED_FILES = frozenset({b"thumbs.db", b"desktop.ini", b"icon\r"})
IGNORED_FOLDERS = frozenset(
    {b".stfolder", b".stversions", b"@eadir", b"#recycle", b".spotlight-v100", b".trashes", b".fseventsd", b"__macosx"}
)  # fmt: skip
AUDIO_SUFFIXES = frozenset(
    b".wav .wave .rf64 .bw64 .bwf .w64 .aif .aiff .aifc .caf .flac .ogg .oga .opus .mp3 .mp2 .au .snd .voc .sd2 "
    b".m4a .m4b .m4r .aac .alac .ac3 .amr .ape .wma .wv .mka .mp4 .m4v .mov .mkv .webm .avi .3gp".split()
)
SIDECAR_SUFFIX = b".toml"


def why_file_is_ignored(name: bytes) -> str:
    """Say why a file of this name is never taken, or return an empty string."""
    lower = name.lower()
    if name.startswith(b"."):
        return "hidden or temporary name"
    if name.startswith(b"~$") or lower in IGNORED_FILES:
        return "made by the system or an office program"
    if lower.endswith(IGNORED_SUFFIXES):
        return "temporary name of a download or copy"
    if _suffix(lower) not in AUDIO_SUFFIXES and _suffix(lower) != SIDECAR_SUFFIX:
        return "extension"
    return ""


def why_folder_is_ignored(name: bytes) -> str:
    """Say why a folder of this name is never entered, or return an empty string."""
    lower = name.lower()
    if lower in IGNORED_FOLDERS or lower.endswith(b".download"):
        return "folder of the system or of a synchronising program"
    return "hidden folder" if name.startswith(b".") else ""


def _suffix(name: bytes) -> bytes:
    stem, dot, suffix = name.rpartition(b".")
    return dot + suffix if stem else b""

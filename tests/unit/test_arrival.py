"""The arrival rule with an injected clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvc_batch.engine.containers import Completeness, Container
from rvc_batch.jobs.arrival import (
    DATALESS_FLAG,
    ArrivalRule,
    Inspection,
    Look,
    Track,
    Verdict,
    judge,
    why_file_is_ignored,
    why_folder_is_ignored,
)

RULE = ArrivalRule()
LOOK = Look(size=1000, mtime_ns=5, ctime_ns=6, device=1, inode=2)
WHOLE = Inspection(container=Container(kind="WAV", completeness=Completeness.WHOLE, present=1000, promised=1000))
SHORT = Inspection(container=Container(kind="WAV", completeness=Completeness.SHORT, present=1000, promised=3000))


def verdict(track: Track, now: float) -> Verdict:
    return judge(track, now, RULE).verdict


def settled(inspection: Inspection | None = None, look: Look = LOOK) -> Track:
    track = Track.start(look, 100.0)
    return track.inspected(inspection) if inspection else track


def test_unchanged_whole_file_is_accepted_after_the_settle_time() -> None:
    track = Track.start(LOOK, 100.0)
    assert verdict(track, 100.0) is Verdict.SETTLING
    assert verdict(track.seen(LOOK, 102.9), 102.9) is Verdict.SETTLING
    assert verdict(track.seen(LOOK, 103.0), 103.0) is Verdict.INSPECT
    assert verdict(track.inspected(WHOLE), 103.0) is Verdict.ACCEPT


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode", "device", "sidecar"])
def test_any_change_between_looks_starts_the_wait_again(field: str) -> None:
    changed = dataclasses.replace(LOOK, **{field: (9, 9, 9) if field == "sidecar" else 999})
    track = settled(WHOLE).seen(changed, 102.0)
    assert verdict(track, 104.9) is Verdict.SETTLING
    assert track.inspection is None
    assert verdict(track, 105.0) is Verdict.INSPECT


@given(gaps=st.lists(st.floats(0.01, 2.99), min_size=1, max_size=60))
def test_slow_copy_is_never_accepted_while_it_grows(gaps: list[float]) -> None:
    now, size = 0.0, 1
    track = Track.start(dataclasses.replace(LOOK, size=size), now)
    for gap in gaps:
        now, size = now + gap, size + 1
        assert verdict(track, now) is Verdict.SETTLING
        track = track.seen(dataclasses.replace(LOOK, size=size), now)
    assert verdict(track, now + 3.01) is Verdict.INSPECT


@pytest.mark.parametrize("mtime_ns", [0, 978_307_200 * 10**9, 4_070_908_800 * 10**9])
def test_old_and_future_times_do_not_matter(mtime_ns: int) -> None:
    track = settled(WHOLE, dataclasses.replace(LOOK, mtime_ns=mtime_ns))
    assert verdict(track, 102.0) is Verdict.SETTLING
    assert verdict(track, 103.0) is Verdict.ACCEPT


def test_stalled_copy_stays_incomplete_and_is_accepted_when_it_has_grown() -> None:
    track = settled(SHORT)
    found = judge(track, 130.0, RULE)
    assert found.verdict is Verdict.INCOMPLETE
    assert "promises 3000 bytes" in found.reason
    assert "holds 1000" in found.reason
    grown = track.seen(dataclasses.replace(LOOK, size=3000, mtime_ns=9), 500.0)
    assert verdict(grown, 502.0) is Verdict.SETTLING
    assert verdict(grown.inspected(WHOLE), 503.0) is Verdict.ACCEPT


def test_short_file_is_truncated_after_ten_unchanged_minutes() -> None:
    assert verdict(settled(SHORT), 100.0 + 599.9) is Verdict.INCOMPLETE
    assert verdict(settled(SHORT), 100.0 + 600.0) is Verdict.TRUNCATED


def test_growth_of_a_short_file_starts_the_ten_minutes_again() -> None:
    track = settled(SHORT).seen(dataclasses.replace(LOOK, size=1001), 690.0).inspected(SHORT)
    assert verdict(track, 750.0) is Verdict.INCOMPLETE
    assert verdict(track, 1290.0) is Verdict.TRUNCATED


def test_empty_file_waits_a_minute() -> None:
    track = settled(look=dataclasses.replace(LOOK, size=0))
    assert verdict(track, 159.9) is Verdict.SETTLING
    assert verdict(track, 160.0) is Verdict.EMPTY


def test_file_larger_than_the_limit_is_never_opened_and_says_so() -> None:
    petabyte = dataclasses.replace(LOOK, size=10**15)
    judgement = judge(settled(look=petabyte), 1e9, RULE)
    assert judgement.verdict is Verdict.UNREADABLE
    assert judgement.reason == "too large: 1,000,000 GB, the limit is 100 GB (watch.max_gb)"
    assert verdict(settled(look=dataclasses.replace(LOOK, size=RULE.max_bytes)), 1e9) is Verdict.INSPECT


def test_zeros_at_the_end_wait_ten_times_as_long() -> None:
    zeros = Inspection(container=dataclasses.replace(WHOLE.container, zero_tail=True))  # type: ignore[type-var]
    assert verdict(settled(zeros), 129.9) is Verdict.SETTLING
    assert verdict(settled(zeros), 130.0) is Verdict.ACCEPT


def test_unreadable_file_waits_until_it_changes() -> None:
    track = settled(Inspection(unreadable="Permission denied"))
    assert judge(track, 10_000.0, RULE).reason == "Permission denied"
    assert verdict(track, 10_000.0) is Verdict.UNREADABLE
    assert verdict(track.seen(dataclasses.replace(LOOK, ctime_ns=77), 10_000.0), 10_003.0) is Verdict.INSPECT


@pytest.mark.parametrize(
    "change",
    [
        {"birthtime": datetime(1946, 2, 14, 8, 34, 56, tzinfo=UTC).timestamp()},
        {"birthtime": datetime(1984, 1, 24, 8, 0, tzinfo=UTC).timestamp()},
        {"flags": DATALESS_FLAG},
        {"sibling": b"a.wav.crdownload"},
    ],
)
def test_busy_marker_keeps_a_file_waiting_for_ever(change: dict[str, object]) -> None:
    track = settled(WHOLE, dataclasses.replace(LOOK, **change))  # type: ignore[arg-type]
    assert verdict(track, 1e6) is Verdict.SETTLING
    assert verdict(track.seen(LOOK, 1e6).inspected(WHOLE), 1e6 + 3) is Verdict.ACCEPT


def test_restarted_file_waits_the_whole_time_again() -> None:
    assert verdict(settled(WHOLE).restarted(110.0), 112.9) is Verdict.SETTLING


@pytest.mark.parametrize(
    "name",
    [
        ".song.wav.aB3dE9", "._song.wav", ".DS_Store", ".localized", "~$song.wav", "song.wav.part", "song.wav.partial",
        "song.wav.crdownload", "song.wav.download", "song.tmp", "song.TEMP", "song.filepart", "song.opdownload",
        "song.aria2", "song.!ut", ".song.wav.icloud", "Thumbs.db", "desktop.ini", "Icon\r", ".syncthing.song.wav.tmp",
    ],
)  # fmt: skip
def test_temporary_and_system_names_are_ignored(name: str) -> None:
    assert why_file_is_ignored(name.encode()) not in ("", "extension")


@pytest.mark.parametrize("name", ["notes.txt", "song", "song.pdf", "wav", "archive.zip"])
def test_other_extensions_are_ignored_by_extension(name: str) -> None:
    assert why_file_is_ignored(name.encode()) == "extension"


@pytest.mark.parametrize(
    "name",
    [
        b"song.wav",
        b"SONG.WAV",
        b"a.b.flac",
        b"-rf.mp3",
        b" x.ogg",
        b"bad\xff.wav",
        "日本.m4a".encode(),
        b"song.wav.toml",
    ],
)
def test_audio_names_are_candidates(name: bytes) -> None:
    assert why_file_is_ignored(name) == ""


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (why_folder_is_ignored, n)
        for n in (b".stfolder", b"@eaDir", b"#recycle", b".Trashes", b"__MACOSX", b"a.download")
    ],
)
def test_system_folders_are_never_entered(check: Callable[[bytes], str], name: bytes) -> None:
    assert check(name)
    assert not check(b"alto")

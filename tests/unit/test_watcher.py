"""The watcher with an injected clock and a fake intake; no thread and no event is involved."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvc_batch.config import WatchSettings
from rvc_batch.errors import DiskFull, EnvironmentFault, FolderGone, InputUnreadable, RvcBatchError, SourceChanged
from rvc_batch.jobs import watcher as watcher_module
from rvc_batch.jobs.arrival import Complete, Look
from rvc_batch.jobs.models import Arrival, Job
from rvc_batch.jobs.watcher import Hints, Watcher
from tests.job_fakes import job_like, write_audio
from tests.media_files import write_media


class World:
    """Clock, intake and board of one watcher."""

    def __init__(self, inbox: Path) -> None:
        self.inbox, self.now = inbox, 100.0
        self.taken: list[tuple[bytes, str]] = []
        self.groups: list[int] = []
        self.shown: list[Arrival] = []
        self.error: Exception | None = None
        self.draining = False
        self.absent = ""
        self.watcher = Watcher(
            inbox,
            lambda: WatchSettings(settle_seconds=3.0, truncated_after_seconds=600.0),
            intake=self,
            board=self,
            check_inbox=self.check_inbox,
            monotonic=lambda: self.now,
            wall=lambda: 1e9 + self.now,
        )

    def resume(self) -> None:
        if isinstance(self.error, DiskFull):
            raise self.error

    def accept_all(self, files: Sequence[Complete]) -> Any:
        self.groups.append(len(files))
        if isinstance(self.error, EnvironmentFault):
            raise self.error
        return [self.error or self._take(file.rel, "accepted") for file in files]

    def refuse(self, rel: bytes, look: Look, error: RvcBatchError) -> Any:
        return self._take(rel, error.code)

    def _take(self, rel: bytes, how: str) -> Job:
        self.taken.append((rel, how))
        (self.inbox / os.fsdecode(rel)).unlink()
        return job_like()

    def check_inbox(self) -> None:
        if self.absent:
            raise FolderGone(self.absent)

    def is_draining(self) -> bool:
        return self.draining

    def replace_arrivals(self, found: list[Arrival]) -> None:
        self.shown = found

    def look(self, *times: float) -> None:
        for seconds in times:
            self.now += seconds
            self.watcher.look()

    def reasons(self) -> dict[bytes, str]:
        return {a.path: f"{a.verdict}: {a.reason}" for a in self.shown}


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "inbox").mkdir()
    return World(tmp_path / "inbox")


def test_settled_file_is_taken_once(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.look(0, 1, 1)
    assert not world.taken
    assert world.watcher.is_expecting
    world.look(1, 1, 10)
    assert world.taken == [(b"a.wav", "accepted")]
    assert not world.watcher.is_expecting


def test_half_copied_file_present_at_the_start_is_not_taken(world: World) -> None:
    write_audio(world.inbox / "whole.wav")
    data = (world.inbox / "whole.wav").read_bytes()
    (world.inbox / "half.wav").write_bytes(data[:1000])
    world.look(0, 3, 60)
    assert world.taken == [(b"whole.wav", "accepted")]
    assert world.reasons()[b"half.wav"].startswith("incomplete: its WAV header promises")
    (world.inbox / "half.wav").write_bytes(data)
    world.look(1, 3)
    assert world.taken[1:] == [(b"half.wav", "accepted")]


def test_file_that_needs_pyav_stays_until_it_is_installed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write_media(world.inbox / "a.m4a", "m4a", np.zeros(5_000))
    monkeypatch.setattr(watcher_module, "has_media", lambda: False)
    world.look(0, 3, 700)
    assert not world.taken
    assert world.reasons()[b"a.m4a"].startswith("unreadable: MPEG-4 (m4a, mp4, mov) needs PyAV: pip install av")
    assert not world.watcher.is_expecting, "`run --until-idle` does not wait for it"
    monkeypatch.undo()
    world.look(1)
    assert world.taken == [(b"a.m4a", "accepted")]


def test_file_that_stays_short_or_empty_is_refused(world: World) -> None:
    write_audio(world.inbox / "cut.wav")
    (world.inbox / "cut.wav").write_bytes((world.inbox / "cut.wav").read_bytes()[:1000])
    (world.inbox / "empty.wav").touch()
    world.look(0, 59)
    assert not world.taken
    world.look(1)
    assert world.taken == [(b"empty.wav", "E_INPUT_EMPTY")]
    world.look(539.9, 0.1)
    assert world.taken[1:] == [(b"cut.wav", "E_INPUT_TRUNCATED")]


def test_draining_box_leaves_files_in_the_inbox_says_so_and_takes_them_afterwards(world: World) -> None:
    world.draining = True
    write_audio(world.inbox / "a.wav")
    (world.inbox / "empty.wav").touch()
    world.look(0, 3, 600)
    assert not world.taken
    assert set(world.reasons().values()) == {"settling: the box drains: nothing new is taken until `rvc-batch resume`"}
    assert not world.watcher.is_expecting, "a run until idle ends"
    world.draining = False
    world.look(1)
    assert sorted(world.taken) == [(b"a.wav", "accepted"), (b"empty.wav", "E_INPUT_EMPTY")]


def test_file_that_is_written_again_and_again_is_never_taken(world: World) -> None:
    for size in range(1, 40):
        (world.inbox / "a.mp3").write_bytes(b"x" * size)
        world.look(2.9)
    assert not world.taken
    assert world.reasons()[b"a.mp3"].startswith("settling")


def test_times_of_the_file_do_not_matter(world: World) -> None:
    for name, when in (("old.wav", 978_307_200), ("future.wav", 4_070_908_800)):
        write_audio(world.inbox / name)
        os.utime(world.inbox / name, (when, when))
    world.look(0, 2.9)
    assert not world.taken
    world.look(0.1)
    assert len(world.taken) == 2


def test_file_that_changed_under_the_intake_settles_again(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.error = SourceChanged("changed")
    world.look(0, 3)
    world.error = None
    world.look(2.9)
    assert not world.taken
    world.look(0.1)
    assert len(world.taken) == 1


def test_unmovable_file_waits_for_a_change_and_does_not_hold_up_others(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.error = InputUnreadable("a.wav cannot be moved")
    world.look(0, 3)
    world.error = None
    write_audio(world.inbox / "b.wav")
    world.look(1, 3, 100)
    assert world.taken == [(b"b.wav", "accepted")]
    assert world.reasons() == {b"a.wav": "unreadable: a.wav cannot be moved"}
    assert not world.watcher.is_expecting
    (world.inbox / "a.wav").chmod(0o600)
    world.look(1, 3)
    assert (b"a.wav", "accepted") in world.taken


def test_machine_fault_takes_nothing_and_goes_away_by_itself(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.error = DiskFull("no space")
    world.look(0, 3, 30)
    assert world.watcher.status().error == "no space"
    assert not world.taken
    world.error = None
    world.look(30)
    assert world.taken == [(b"a.wav", "accepted")]
    assert world.watcher.status().error == ""


def test_inbox_that_vanishes_is_reported_and_noticed_when_it_is_back(world: World) -> None:
    world.look(0)
    world.inbox.rmdir()
    world.look(1)
    assert "cannot be read" in world.watcher.status().error
    assert world.watcher.is_expecting
    world.inbox.mkdir()
    write_audio(world.inbox / "a.wav")
    world.look(1, 3)
    assert world.taken == [(b"a.wav", "accepted")]


def test_inbox_whose_volume_is_gone_is_not_looked_at(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.absent = "inbox is not mounted"
    world.look(0, 3, 3)
    assert not world.taken
    assert world.watcher.status().error == "inbox is not mounted"
    assert world.watcher.is_expecting, "a run until idle waits for it"
    world.absent = ""
    world.look(1, 3)
    assert world.taken == [(b"a.wav", "accepted")]
    assert world.watcher.status().error == ""


def test_file_deleted_while_settling_is_dropped_quietly(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.look(0, 1)
    (world.inbox / "a.wav").unlink()
    world.look(1, 3)
    assert not world.taken
    assert not world.shown
    assert not world.watcher.is_expecting


def test_unreadable_file_is_shown_with_the_reason(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(world.inbox / "a.wav")
    original = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("a.wav"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    world.look(0, 3, 5)
    assert world.reasons() == {
        b"a.wav": "unreadable: cannot be opened (Permission denied); make it readable for the service"
    }
    monkeypatch.undo()
    (world.inbox / "a.wav").chmod(0o600)
    world.look(1, 3)
    assert len(world.taken) == 1


def test_settings_file_that_is_still_written_holds_its_audio_back(world: World) -> None:
    write_audio(world.inbox / "a.wav")
    world.look(0, 2)
    (world.inbox / "a.wav.toml").write_text("transpose = 1")
    world.look(1.5)
    assert not world.taken
    world.look(3)
    assert world.taken == [(b"a.wav", "accepted")]


def test_many_files_are_taken_in_the_order_they_came(world: World) -> None:
    for name in ("c", "a"):
        write_audio(world.inbox / f"{name}.wav")
    world.look(0)
    write_audio(world.inbox / "b.wav")
    world.look(1, 3)
    assert [rel for rel, _ in world.taken] == [b"a.wav", b"c.wav", b"b.wav"]


@pytest.mark.parametrize(("limit", "sizes"), [("GROUP_FILES", [2, 2, 1]), ("GROUP_BYTES", [1, 1, 1, 1, 1])])
def test_files_are_taken_in_groups_of_limited_size(
    world: World, monkeypatch: pytest.MonkeyPatch, limit: str, sizes: list[int]
) -> None:
    monkeypatch.setattr(watcher_module, limit, 2)
    for name in "abcde":
        write_audio(world.inbox / f"{name}.wav")
    world.look(0, 3)
    assert world.groups == sizes
    assert [rel for rel, _ in world.taken] == [b"a.wav", b"b.wav", b"c.wav", b"d.wav", b"e.wav"]


# --- hints: real events, polled with a deadline ---


def noticed(hints: Hints, act: Callable[[], object]) -> bool:
    while hints._event.is_set():
        hints.wait(0)
    act()
    return hints._event.wait(5)


def test_events_give_hints_and_the_observer_is_rebuilt_with_the_inbox(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    hints = Hints(inbox)
    try:
        hints.ensure()
        assert hints.mode == "events and rescan"
        assert noticed(hints, (inbox / "a.wav").touch)
        (inbox / "a.wav").unlink()
        inbox.rmdir()
        hints.ensure()
        assert hints.mode == "rescan"
        inbox.mkdir()
        hints.ensure()
        assert noticed(hints, (inbox / "b.wav").touch)
    finally:
        hints.close()


def test_inbox_that_was_swapped_for_another_folder_is_watched(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    hints = Hints(inbox)
    try:
        hints.ensure()
        inbox.rename(tmp_path / "old")
        inbox.mkdir()
        hints.ensure()
        assert noticed(hints, (inbox / "a.wav").touch)
    finally:
        hints.close()


def test_dead_emitter_is_noticed_and_replaced(tmp_path: Path) -> None:
    hints = Hints(tmp_path)
    try:
        hints.ensure()
        for emitter in hints._observer.emitters:
            emitter.stop()
            emitter.join()
        hints.ensure()
        assert noticed(hints, (tmp_path / "a.wav").touch)
    finally:
        hints.close()

"""From a complete file to a queued job on a real database and real folders, with every step failing once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.engine.containers import Completeness, Container
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import DatabaseUnusable, DiskFull, FolderGone, InputTruncated, InputUnreadable, SourceChanged
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs import ingest as ingest_module
from rvc_batch.jobs.arrival import Complete, Look
from rvc_batch.jobs.ingest import Ingest
from rvc_batch.jobs.listing import list_inbox
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.request import Choices
from rvc_batch.jobs.sources import Sources
from tests.job_fakes import files_below, write_audio

WHOLE = Container(kind="WAV", completeness=Completeness.WHOLE, present=1, seconds=0.1)


class Box:
    """A home with a queue and an ingest."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.create()
        self.queue = Queue.open(self.home.database)
        self.sources = Sources(self.home, keep_sources=True)
        self.restart()

    def restart(self) -> None:
        """Stand for a new daemon, which knows only what is in the database."""
        choices = Choices(("alto",), "", ConversionSettings())
        self.ingest = Ingest(self.home, self.queue, self.sources, choices=lambda: choices, max_attempts=3)
        for job in self.queue.unfinished():
            self.ingest.adopt(job)

    def drop(self, name: str = "a.wav", seed: int = 0) -> Look:
        write_audio(self.home.inbox / name, seed=seed)
        return self.look(name)

    def look(self, name: str = "a.wav") -> Look:
        return list_inbox(self.home.inbox, depth=8).candidates[name.encode()]

    def jobs(self) -> list[Job]:
        return self.queue.list()[::-1]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.queue.close()


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception) -> None:
    original, left = getattr(owner, name), [error]

    def call(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, call)


def test_file_moves_to_work_with_its_settings_file_and_is_queued(box: Box) -> None:
    (box.home.inbox / "a.wav.toml").write_text("transpose = 4")
    (box.home.inbox / "._a.wav").write_text("AppleDouble")
    box.drop()
    job = box.ingest.accept(b"a.wav", box.look(), WHOLE)
    assert (job.state, job.voice, job.settings.transpose, job.seconds_in) == (JobState.QUEUED, "alto", 4.0, 0.1)
    assert files_below(box.home.inbox) == []
    assert files_below(box.home.work) == [
        f"{job.public_id}/{n}" for n in ("._a.wav", "a.wav", "a.wav.toml", "job.json")
    ]


@pytest.mark.parametrize("change", ["append", "replace", "touch", "link", "gone"])
def test_file_that_is_not_what_was_looked_at_is_not_taken(box: Box, change: str) -> None:
    look = box.drop()
    path = box.home.inbox / "a.wav"
    if change == "append":
        with path.open("ab") as file:
            file.write(b"more")
    elif change == "replace":
        write_audio(box.home.inbox / "b.wav", seed=1)
        (box.home.inbox / "b.wav").replace(path)
    elif change == "touch":
        os.utime(path, (1, 1))
    else:
        path.rename(box.home.root / "elsewhere.wav")
        if change == "link":
            path.symlink_to(box.home.root / "elsewhere.wav")
    with pytest.raises(SourceChanged):
        box.ingest.accept(b"a.wav", look, WHOLE)
    assert box.jobs() == []


def test_file_that_changes_while_it_is_hashed_is_not_taken(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    look, path, genuine = box.drop(), box.home.inbox / "a.wav", ingest_module.hashlib.sha256

    def written_meanwhile() -> Any:
        with path.open("ab") as file:
            file.write(b"more")
        return genuine()

    monkeypatch.setattr(ingest_module.hashlib, "sha256", written_meanwhile)
    monkeypatch.setattr(ingest_module, "_matches", second_look_only(ingest_module._matches))
    with pytest.raises(SourceChanged, match="changed while it was read"):
        box.ingest.accept(b"a.wav", look, WHOLE)
    assert box.jobs() == []


def second_look_only(matches: Callable[..., bool]) -> Callable[..., bool]:
    """Let the look before hashing pass, so that the one after it must notice."""
    looks: list[bool] = []

    def look(*arguments: Any) -> bool:
        looks.append(not looks or matches(*arguments))
        return looks[-1]

    return look


def test_move_into_work_is_durable_at_both_ends_before_the_job_is_queued(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss must neither bring the file back into the inbox nor lose it from work/."""
    look, steps = box.drop(), list[str]()
    for owner, name, tell in (
        (durable, "sync_folder", lambda folder: f"sync {folder.name}"),
        (ingest_module, "_rename", lambda source, target: f"move {source.name}"),
        (box.queue, "enqueue_all", lambda numbers: "queued"),
    ):
        monkeypatch.setattr(owner, name, telling(getattr(owner, name), tell, steps))
    job = box.ingest.accept(b"a.wav", look, WHOLE)
    before, after = steps[: steps.index("move a.wav")], steps[steps.index("move a.wav") + 1 :]
    assert before == ["sync work"], "the new folder is there before anything moves into it"
    assert sorted(after[:-1]) == sorted([f"sync {job.public_id}", "sync inbox"])
    assert after[-1] == "queued"


def telling(step: Callable[..., Any], tell: Callable[..., str], steps: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        steps.append(tell(*arguments))
        return step(*arguments, **named)

    return call


def offered(box: Box, *names: str) -> list[Complete]:
    looks = [box.drop(name, seed) for seed, name in enumerate(names)]
    return [Complete(name.encode(), look, WHOLE) for name, look in zip(names, looks, strict=True)]


def test_group_costs_two_transactions_however_many_files_it_has(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = list[str]()
    monkeypatch.setattr(box.queue._db, "write", telling(box.queue._db.write, lambda body: "write", writes))
    taken = box.ingest.accept_all(offered(box, "a.wav", "b.wav", "c.wav"))
    assert [job.state for job in box.jobs()] == [JobState.QUEUED] * 3
    assert taken == box.jobs()
    assert len(writes) == 2


def test_bad_files_of_a_group_do_not_hold_up_the_others(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    files = offered(box, "a.wav", "changed.wav", "fixed.wav", "z.wav")
    os.utime(box.home.inbox / "changed.wav", (1, 1))
    rename = ingest_module._rename

    def refuse(source: Path, target: Path) -> None:
        if source.name == "fixed.wav":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        rename(source, target)

    monkeypatch.setattr(ingest_module, "_rename", refuse)
    first, changed, fixed, last = box.ingest.accept_all(files)
    assert isinstance(changed, SourceChanged)
    assert isinstance(fixed, InputUnreadable)
    assert [first, last] == [job for job in box.jobs() if job.state is JobState.QUEUED]
    assert files_below(box.home.inbox) == ["changed.wav", "fixed.wav"]


def test_group_whose_moves_cannot_be_made_durable_is_resumed_as_a_whole(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = offered(box, "a.wav", "b.wav")
    original, left = durable.sync_all, [OSError(errno.EIO, "Input/output error")]

    def fail_once(*, files: Any = (), folders: Any = ()) -> None:
        if not files and left:  # after the moves, not before
            raise left.pop()
        original(files=files, folders=folders)

    monkeypatch.setattr(durable, "sync_all", fail_once)
    with pytest.raises(FolderGone):
        box.ingest.accept_all(files)
    assert [job.state for job in box.jobs()] == [JobState.INGESTING] * 2
    box.ingest.resume()
    assert [job.state for job in box.jobs()] == [JobState.QUEUED] * 2
    assert not left


def test_settings_file_left_behind_by_a_crash_follows_its_audio(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.home.inbox / "a.wav.toml").write_text("transpose = 4")
    look = box.drop()
    failing_once(monkeypatch, ingest_module, "companions", RuntimeError("killed here"))
    with pytest.raises(RuntimeError):
        box.ingest.accept(b"a.wav", look, WHOLE)
    box.restart()
    box.ingest.resume()
    (job,) = box.jobs()
    assert job.state is JobState.QUEUED
    assert box.sources.path(job).with_name("a.wav.toml").is_file()
    assert files_below(box.home.inbox) == []


def test_other_name_of_a_hard_link_is_left_alone(box: Box) -> None:
    mine = box.home.root / "mine.wav"
    write_audio(mine)
    content = mine.read_bytes()
    (box.home.inbox / "a.wav").hardlink_to(mine)
    job = box.ingest.accept(b"a.wav", box.look(), WHOLE)
    assert job.state is JobState.QUEUED
    assert (mine.read_bytes(), files_below(box.home.inbox)) == (content, [])


def test_second_file_of_an_active_job_is_a_duplicate_and_kept(box: Box) -> None:
    box.ingest.accept(b"a.wav", box.drop(), WHOLE)
    again = box.ingest.accept(b"a.wav", box.drop(), WHOLE)
    assert (again.state, again.duplicate_of) == (JobState.DUPLICATE, 1)
    assert files_below(box.home.inbox) == []
    assert files_below(box.home.processed) == ["a.wav"]


def test_refused_file_is_a_failed_job_with_its_source_in_failed(box: Box) -> None:
    job = box.ingest.refuse(b"a.wav", box.drop(), InputTruncated("a.wav is not complete"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "E_INPUT_TRUNCATED"
    assert files_below(box.home.failed) == ["a.wav", "a.wav.error.txt"]
    assert files_below(box.home.work) == []


def test_file_that_cannot_be_moved_stays_and_its_job_fails(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    look = box.drop()
    original = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "a.wav":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputUnreadable, match="cannot be moved out of the inbox"):
        box.ingest.accept(b"a.wav", look, WHOLE)
    assert files_below(box.home.inbox) == ["a.wav"]
    assert [j.state for j in box.jobs()] == [JobState.FAILED]
    assert files_below(box.home.work) == []


def test_full_disk_leaves_one_row_that_is_resumed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    look = box.drop()
    failing_once(monkeypatch, box.sources, "open_folders", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(DiskFull):
        box.ingest.accept(b"a.wav", look, WHOLE)
    assert [j.state for j in box.jobs()] == [JobState.INGESTING]
    assert files_below(box.home.inbox) == ["a.wav"]
    box.ingest.resume()
    box.ingest.resume()
    assert [j.state for j in box.jobs()] == [JobState.QUEUED]
    assert files_below(box.home.inbox) == []


def test_locked_database_after_the_move_leaves_one_row_that_is_resumed(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = box.drop()
    failing_once(monkeypatch, box.queue, "enqueue_all", DatabaseUnusable("locked"))
    with pytest.raises(DatabaseUnusable):
        box.ingest.accept(b"a.wav", look, WHOLE)
    box.ingest.resume()
    (job,) = box.jobs()
    assert job.state is JobState.QUEUED
    assert box.sources.path(job).is_file()


def test_inbox_on_another_volume_is_copied_whole_and_emptied(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    look = box.drop()
    data = (box.home.inbox / "a.wav").read_bytes()
    rename, link = Path.rename, os.link

    def across(source: Any, target: Any) -> bool:
        return str(source).startswith(str(box.home.inbox)) and not str(target).startswith(str(box.home.inbox))

    def no_rename(self: Path, target: Path) -> Path:
        if across(self, target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    def no_link(source: Any, target: Any, **named: Any) -> None:
        if across(source, target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **named)

    monkeypatch.setattr(Path, "rename", no_rename)
    monkeypatch.setattr(os, "link", no_link)
    job = box.ingest.accept(b"a.wav", look, WHOLE)
    assert box.sources.path(job).read_bytes() == data
    assert files_below(box.home.inbox) == []
    assert len(files_below(box.home.work)) == 2


def test_original_of_a_copy_that_was_finished_before_a_crash_is_removed(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = box.drop()
    failing_once(monkeypatch, box.queue, "enqueue_all", DatabaseUnusable("killed here"))
    with pytest.raises(DatabaseUnusable):
        box.ingest.accept(b"a.wav", look, WHOLE)
    box.drop()  # as if it had been copied, not moved
    box.restart()
    box.ingest.resume()
    assert files_below(box.home.inbox) == []
    assert [j.state for j in box.jobs()] == [JobState.QUEUED]


def test_other_file_of_that_name_is_left_alone_by_recovery(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    look = box.drop()
    failing_once(monkeypatch, box.queue, "enqueue_all", DatabaseUnusable("killed here"))
    with pytest.raises(DatabaseUnusable):
        box.ingest.accept(b"a.wav", look, WHOLE)
    box.drop(seed=9)
    box.restart()
    box.ingest.resume()
    assert files_below(box.home.inbox) == ["a.wav"]
    assert box.jobs()[0].state is JobState.QUEUED


def test_row_whose_file_is_gone_fails(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    look = box.drop()
    failing_once(monkeypatch, box.sources, "open_folders", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(DiskFull):
        box.ingest.accept(b"a.wav", look, WHOLE)
    (box.home.inbox / "a.wav").unlink()
    box.ingest.resume()
    (job,) = box.jobs()
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "E_SOURCE_GONE")


def test_recovery_refuses_what_was_to_be_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.drop()
    (box.home.inbox / "a.wav").write_bytes((box.home.inbox / "a.wav").read_bytes()[:200])
    failing_once(monkeypatch, box.queue, "reject", DatabaseUnusable("killed here"))
    with pytest.raises(DatabaseUnusable):
        box.ingest.refuse(b"a.wav", box.look(), InputTruncated("short"))
    box.restart()
    box.ingest.resume()
    (job,) = box.jobs()
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "E_INPUT_TRUNCATED")
    assert files_below(box.home.failed) == ["a.wav", "a.wav.error.txt"]

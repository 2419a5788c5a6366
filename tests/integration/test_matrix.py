"""A recipe of several voices: one file becomes a job for each, whatever happens in between, and nothing is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.engine.containers import Completeness, Container
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import DatabaseUnusable, DiskFull
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs import ingest as ingest_module
from rvc_batch.jobs.arrival import Look
from rvc_batch.jobs.ingest import Ingest
from rvc_batch.jobs.listing import list_inbox
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.presets import Presets
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.request import Choices
from rvc_batch.jobs.sources import Sources
from tests.daemon_harness import jobs_of, run_until_idle
from tests.job_fakes import files_below, write_audio

WHOLE = Container(kind="WAV", completeness=Completeness.WHOLE, present=1, seconds=0.1)
VOICES = ("alto", "bass", "tenor")
NAME = "trio/a.wav"
SIDECAR = "transpose = 4"


class Box:
    """A home with a recipe of three voices, and one file with a settings file that is dropped for it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.create()
        (self.home.recipes / "trio.toml").write_text('voice = ["alto", "bass", "tenor"]\nprotect = 0.1')
        self.queue = Queue.open(self.home.database)
        self.sources = Sources(self.home, keep_sources=True)
        self.restart()

    def restart(self) -> None:
        """Stand for a new daemon, which knows only what is in the database."""
        choices = Choices(VOICES, "", ConversionSettings(), Presets(self.home.recipes, self.home.voices))
        self.ingest = Ingest(self.home, self.queue, self.sources, choices=lambda: choices, max_attempts=1)
        for job in self.queue.unfinished():
            self.ingest.adopt(job)

    def drop(self, seed: int = 0) -> Look:
        path = self.home.inbox / NAME
        path.parent.mkdir(exist_ok=True)
        path.with_name("a.wav.toml").write_text(SIDECAR)
        write_audio(path, seed=seed)
        return list_inbox(self.home.inbox, depth=8).candidates[NAME.encode()]

    def accept(self, seed: int = 0) -> Job:
        return self.ingest.accept(NAME.encode(), self.drop(seed), WHOLE)

    def jobs(self) -> list[Job]:
        return self.queue.list()[::-1]

    def check_whole(self) -> None:
        """Every job is queued and has the file and its settings in its own work folder; the inbox is empty."""
        jobs = self.jobs()
        assert [(job.voice, job.state) for job in jobs] == [(voice, JobState.QUEUED) for voice in VOICES]
        assert files_below(self.home.inbox) == []
        assert sorted(files_below(self.home.work)) == sorted(
            f"{job.public_id}/{name}" for job in jobs for name in ("a.wav", "a.wav.toml", "job.json")
        )
        assert all(self.sources.is_variant(job) for job in jobs)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.queue.close()


def failing_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call_number: int, error: BaseException
) -> list[int]:
    """Let the n-th call fail, once; return the calls made."""
    original, calls = getattr(owner, name), list[int]()

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == call_number:
            raise error
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_each_voice_has_a_job_with_settings_and_an_output_of_its_own(box: Box) -> None:
    (box.home.voices / "bass.toml").write_text("seed = 3")
    first = box.accept()
    box.check_whole()
    jobs = box.jobs()
    assert first == jobs[0]
    assert [job.output_rel for job in jobs] == [f"trio/a ({voice}).wav".encode() for voice in VOICES]
    assert [(job.settings.transpose, job.settings.protect, job.settings.seed) for job in jobs] == [
        (4.0, 0.1, 0),
        (4.0, 0.1, 3),
        (4.0, 0.1, 0),
    ]
    assert len({box.sources.path(job).stat().st_ino for job in jobs}) == 1  # one file on the disk


def test_recipe_that_cannot_be_used_is_one_failed_job(box: Box) -> None:
    (box.home.recipes / "trio.toml").write_text('voice = ["alto", "nobody"]')
    job = box.accept()
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "E_VOICE_UNKNOWN")
    assert "recipes/trio.toml:1" in job.error.message
    assert len(box.jobs()) == 1
    assert files_below(box.home.failed) == ["trio/a.wav", "trio/a.wav.error.txt", "trio/a.wav.toml"]


# the n-th call of each step, in the order of the steps: three records, two second names, the move, companions
STEPS = [
    ("sources", "open_folders", 1),
    *((durable, "share", n) for n in (1, 2, 3, 4)),
    *((durable, "sync_all", n) for n in (1, 2, 3)),
    *((ingest_module, "_rename", n) for n in (1, 2)),
    *((ingest_module, "companions", n) for n in (1, 2, 3)),
    ("queue", "enqueue_all", 1),
]


@pytest.mark.parametrize(("owner", "name", "number"), STEPS)
def test_daemon_that_dies_at_any_step_is_resumed_whole(
    box: Box, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int
) -> None:
    owner = getattr(box, owner) if isinstance(owner, str) else owner
    look = box.drop()
    with monkeypatch.context() as patch:
        calls = failing_at(patch, owner, name, number, KeyboardInterrupt("killed here"))
        with pytest.raises(KeyboardInterrupt):
            box.ingest.accept(NAME.encode(), look, WHOLE)
        assert len(calls) == number
    box.restart()
    box.ingest.resume()
    box.check_whole()


@pytest.mark.parametrize(("owner", "name", "number"), [(durable, "share", 2), ("queue", "enqueue_all", 1)])
def test_fault_of_the_machine_is_resumed_by_the_same_daemon(
    box: Box, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int
) -> None:
    owner = getattr(box, owner) if isinstance(owner, str) else owner
    fault = OSError(errno.ENOSPC, "No space left on device") if name == "share" else DatabaseUnusable("locked")
    look = box.drop()
    with monkeypatch.context() as patch:
        failing_at(patch, owner, name, number, fault)
        with pytest.raises((DiskFull, DatabaseUnusable)):
            box.ingest.accept(NAME.encode(), look, WHOLE)
    box.ingest.resume()
    box.check_whole()


def test_second_names_are_durable_before_the_file_leaves_the_inbox(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list[str]()

    def tell(step: Callable[..., Any], what: Callable[..., str]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            steps.append(what(*arguments, **named))
            return step(*arguments, **named)

        return call

    def synced(**named: Any) -> str:
        return f"sync {len(named.get('files', ()))} {len(named['folders'])}"

    monkeypatch.setattr(durable, "sync_all", tell(durable.sync_all, synced))
    monkeypatch.setattr(durable, "share", tell(durable.share, lambda source, target: f"share {source.name}"))
    monkeypatch.setattr(ingest_module, "_rename", tell(ingest_module._rename, lambda *a, **_: f"move {a[0].name}"))
    box.accept()
    assert steps == [
        "sync 3 1", "share a.wav", "share a.wav", "sync 0 2", "move a.wav",
        "share a.wav.toml", "share a.wav.toml", "move a.wav.toml", "sync 0 4",
    ]  # fmt: skip


def test_inbox_on_another_volume_is_copied_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, link = Path.rename, os.link

    def across(source: Any, target: Any) -> bool:
        return str(source).startswith(str(box.home.inbox)) != str(target).startswith(str(box.home.inbox))

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
    box.accept()
    box.check_whole()
    assert len({box.sources.path(job).stat().st_ino for job in box.jobs()}) == 1


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_volume_without_links_gets_copies(box: Box, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    box.accept()
    box.check_whole()


def test_second_drop_makes_duplicates_and_keeps_one_source(box: Box) -> None:
    box.accept()
    again = box.accept()
    assert (again.state, again.duplicate_of) == (JobState.DUPLICATE, 1)
    assert [job.state for job in box.jobs()] == [JobState.QUEUED] * 3 + [JobState.DUPLICATE] * 3
    assert files_below(box.home.inbox) == []
    assert files_below(box.home.processed) == ["trio/a.wav", "trio/a.wav.toml"]


def test_jobs_that_fail_set_their_sources_aside_apart_and_get_them_back(box: Box) -> None:
    box.accept()
    for voice in VOICES[:2]:
        job = box.queue.claim("w", pid=1, lease_seconds=30)
        assert job is not None
        assert job.voice == voice
        box.sources.settle(box.queue.mark_cancelled(job))
    sources = [f"trio/a ({voice}).wav{end}" for voice in VOICES[:2] for end in ("", ".error.txt", ".toml")]
    assert files_below(box.home.failed) == sources
    for job in box.jobs()[:2]:
        box.queue.retry(job.id)
        assert box.sources.fetch(job) == box.sources.path(job)
        assert box.sources.path(job).with_name("a.wav.toml").read_text() == SIDECAR
        assert box.sources.is_variant(job)
    assert files_below(box.home.failed) == []
    box.check_whole()


def test_sources_whose_jobs_are_unknown_come_back_as_one_file(box: Box) -> None:
    box.accept()
    box.sources.sweep(lambda _: None)
    assert files_below(box.home.inbox) == ["trio/a.wav", "trio/a.wav.toml"]
    assert files_below(box.home.work) == []


def test_whole_daemon_renders_one_result_per_voice(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    (home.recipes / "duo.toml").write_text('voice = ["alto", "tenor"]\noutput_format = "flac"')
    (home.inbox / "duo" / "cd").mkdir(parents=True)
    write_audio(home.inbox / "duo" / "cd" / "a.wav")
    write_audio(home.inbox / "duo" / "raise-b.wav", seed=1)
    run_until_idle(home, max_attempts=1)
    assert files_below(home.outbox) == ["duo/cd/a (alto).flac", "duo/cd/a (tenor).flac"]
    assert files_below(home.processed) == ["duo/cd/a.wav"]
    assert [name for name in files_below(home.failed) if name.endswith(".wav")] == [
        "duo/raise-b (alto).wav",
        "duo/raise-b (tenor).wav",
    ]
    assert sorted(job.voice for job in jobs_of(home)) == ["alto", "alto", "tenor", "tenor"]
    assert files_below(home.work) == []

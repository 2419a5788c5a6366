"""Where sources go, and that none is lost or overwritten on the way."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rvc_batch.errors import SourceGone
from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs.models import Job, JobError, JobState
from rvc_batch.jobs.sources import Sources
from tests.job_fakes import files_below, job_like

DATA = b"audio of the user"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.create()
    return home


def at_work(home: Home, job: Job, data: bytes = DATA, *, sidecar: bool = False) -> Sources:
    """Put the job's source into its work folder."""
    sources = Sources(home, keep_sources=True)
    sources.open_folders([job])
    sources.path(job).write_bytes(data)
    if sidecar:
        sources.path(job).with_name(sources.path(job).name + ".toml").write_text("transpose = 1")
    return sources


def ended(state: JobState, **changes: object) -> Job:
    error = JobError(code="E_INPUT_NOT_AUDIO", message="it looks like text", stage="decode")
    return job_like(state=state, error=error if state is JobState.FAILED else None, **changes)


def test_source_of_a_finished_job_goes_to_processed_with_its_sidecar(home: Home) -> None:
    job = ended(JobState.DONE)
    at_work(home, job, sidecar=True).settle(job)
    assert files_below(home.processed) == ["alto/song.wav", "alto/song.wav.toml"]
    assert files_below(home.work) == []
    assert list(home.work.iterdir()) == []


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_source_of_a_failed_job_goes_to_failed_with_the_reason(home: Home, state: JobState) -> None:
    job = ended(state)
    at_work(home, job).settle(job)
    assert files_below(home.failed) == ["alto/song.wav", "alto/song.wav.error.txt"]
    text = (home.failed / "alto" / "song.wav.error.txt").read_text()
    assert "rvc-batch retry 7" in text
    if state is JobState.FAILED:
        assert text.startswith("E_INPUT_NOT_AUDIO\n\nit looks like text\n")


def test_sources_of_one_name_do_not_overwrite_each_other(home: Home) -> None:
    for number in (1, 2, 3):
        job = ended(JobState.DONE, public_id=f"p{number}")
        at_work(home, job, b"%d" % number, sidecar=True).settle(job)
    names = ["song (2).wav", "song (2).wav.toml", "song (3).wav", "song (3).wav.toml", "song.wav", "song.wav.toml"]
    assert files_below(home.processed) == [f"alto/{n}" for n in names]
    assert (home.processed / "alto" / "song (2).wav").read_bytes() == b"2"


def test_source_is_removed_when_sources_are_not_kept_but_never_that_of_a_failed_job(home: Home) -> None:
    done, failed = ended(JobState.DONE, public_id="a"), ended(JobState.FAILED, public_id="b")
    for job in (done, failed):
        at_work(home, job)
        Sources(home, keep_sources=False).settle(job)
    assert files_below(home.processed) == []
    assert "alto/song.wav" in files_below(home.failed)


def test_settling_again_after_a_crash_in_between_changes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ended(JobState.FAILED)
    sources = at_work(home, job)

    def crash(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rvc_batch.jobs.sources.failpoint", crash)
    with pytest.raises(KeyboardInterrupt):
        sources.settle(job)
    monkeypatch.undo()
    sources.sweep(lambda _: job)
    assert files_below(home.failed) == ["alto/song.wav", "alto/song.wav.error.txt"]
    assert files_below(home.work) == []


def test_source_stays_when_processed_cannot_be_written_and_the_sweep_tries_again(home: Home) -> None:
    job = ended(JobState.DONE)
    sources = at_work(home, job)
    home.processed.rmdir()
    sources.settle(job)
    assert sources.path(job).read_bytes() == DATA
    home.processed.mkdir()
    sources.sweep(lambda _: job)
    assert files_below(home.processed) == ["alto/song.wav"]


def test_sweep_leaves_living_jobs_alone(home: Home) -> None:
    job = job_like(state=JobState.QUEUED)
    sources = at_work(home, job)
    sources.sweep(lambda _: job)
    assert sources.path(job).is_file()


@pytest.mark.parametrize("known", [None, job_like(public_id="other", state=JobState.DONE)])
def test_source_without_a_job_goes_back_to_the_inbox(home: Home, known: Job | None) -> None:
    sources = at_work(home, job_like(), sidecar=True)
    sources.sweep(lambda _: known)
    assert files_below(home.inbox) == ["alto/song.wav", "alto/song.wav.toml"]
    assert list(home.work.iterdir()) == []


def test_sweep_does_not_ask_for_jobs_that_are_at_work(home: Home) -> None:
    waiting, done = job_like(public_id="waiting"), ended(JobState.DONE, public_id="done", id=8)
    for job in (waiting, done):
        at_work(home, job)
    asked = list[int]()
    Sources(home, keep_sources=True).sweep(lambda number: asked.append(number) or done, at_work={"waiting"})
    assert asked == [8]
    assert files_below(home.work) == ["waiting/job.json", "waiting/song.wav"]


def test_folder_that_is_not_ours_is_left_alone(home: Home) -> None:
    (home.work / "holiday").mkdir()
    (home.work / "holiday" / "photo.jpg").touch()
    Sources(home, keep_sources=True).sweep(lambda _: None)
    assert files_below(home.work) == ["holiday/photo.jpg"]


def test_retried_job_gets_its_own_source_back_from_failed(home: Home) -> None:
    contents = (b"first", b"second")
    jobs = []
    for number, data in enumerate(contents):
        job = ended(JobState.FAILED, public_id=f"p{number}")
        sources = at_work(home, job, data, sidecar=True)
        sha256, _ = durable.digest(sources.path(job))
        jobs.append(replace(job, content_sha256=sha256))
        sources.settle(job)
    path = sources.fetch(jobs[1])
    assert path.read_bytes() == b"second"
    assert path.with_name("song.wav.toml").is_file()
    assert files_below(home.failed) == ["alto/song.wav", "alto/song.wav.error.txt", "alto/song.wav.toml"]
    assert json.loads((path.parent / "job.json").read_text())["public_id"] == "p1"


def test_source_that_is_nowhere_is_an_error(home: Home) -> None:
    with pytest.raises(SourceGone, match="drop it again"):
        Sources(home, keep_sources=True).fetch(job_like())


@pytest.mark.parametrize(
    "name",
    [
        b"bad\xff.wav",
        "日本 \u202e.wav".encode(),
        b"-rf.wav",
        b" a\nb\x1b.wav",
        b"n" * 251 + b".wav",
        "é".encode() * 125 + b".wav",
    ],
)
def test_any_name_keeps_its_bytes(home: Home, name: bytes) -> None:
    for number in (1, 2):
        job = ended(JobState.FAILED, source_rel=name, public_id=f"p{number}")
        at_work(home, job, b"%d" % number).settle(job)
    found = [os.fsencode(f) for f in files_below(home.failed) if not f.endswith(".txt")]
    assert name in found
    assert len(found) == 2
    assert max(len(f) for f in found) <= 255

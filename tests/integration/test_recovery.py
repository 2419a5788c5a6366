"""What a new life finds of an old one: results on a volume that was away, settings files left behind, half a folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from rvc_batch.errors import FolderGone
from rvc_batch.home import Home
from rvc_batch.jobs import publish
from rvc_batch.jobs.daemon import recover
from rvc_batch.jobs.messages import Rendered
from rvc_batch.jobs.models import Job, JobState
from tests import inline_box
from tests.daemon_harness import drop, jobs_of, renders, short_delays
from tests.job_fakes import files_below


class Died(Exception):
    """Stands for the end of the process."""


def die_at(monkeypatch: pytest.MonkeyPatch, module: object, point: str) -> None:
    def die(name: str) -> None:
        if name == point:
            raise Died

    monkeypatch.setattr(module, "failpoint", die)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_result_published_before_its_volume_went_is_not_rendered_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(home, "a.wav")
    with inline_box.opened(home) as box, monkeypatch.context() as patch:
        ((rel, look),) = box.candidates().items()
        box.take(rel, look)
        assignment = box.claim()
        assert assignment is not None
        word = box.render(assignment)
        assert isinstance(word, Rendered)
        die_at(patch, publish, publish.PUBLISH_LINKED)
        with pytest.raises(Died):
            box.end(word)
    away = home.outbox.rename(home.root / "away")
    with inline_box.opened(home) as box, short_delays(0.0):
        recover(home, box.queue, box.ingest, box.sources)
        assert box.claim() is None, "the outbox is not there"
        (job,) = jobs_of(home)
        assert (job.state, job.attempt) == (JobState.QUEUED, 1)  # that of the daemon which died
        away.rename(home.outbox)
        assert box.claim() is None, "there is nothing to render"
    (job,) = jobs_of(home)
    assert job.state is JobState.DONE
    assert len(renders(home)) == 1
    assert inline_box.published(home) == [home.outbox / "a.wav"]
    assert files_below(home.processed) == ["a.wav"]


def test_settings_file_of_a_newer_file_of_that_name_stays_in_the_inbox(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rvc_batch.jobs import ingest

    drop(home, "a.wav")
    with inline_box.opened(home) as box, monkeypatch.context() as patch:
        ((rel, look),) = box.candidates().items()
        die_at(patch, ingest, ingest.INGEST_TAKEN)
        with pytest.raises(Died):
            box.take(rel, look)
    (home.inbox / "a.wav.toml").write_text("transpose = 7")
    drop(home, "a.wav", seed=1)
    inline_box.live(home)
    assert [job.settings.transpose for job in jobs_of(home)] == [0.0, 7.0]
    assert {job.state for job in jobs_of(home)} == {JobState.DONE}


def test_settings_file_that_power_loss_left_in_both_places_is_in_one_afterwards(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rvc_batch.jobs import ingest

    (home.inbox / "a.wav.toml").write_text("transpose = 7")
    drop(home, "a.wav")
    with inline_box.opened(home) as box, monkeypatch.context() as patch:
        ((rel, look),) = box.candidates().items()
        die_at(patch, ingest, ingest.INGEST_MOVED)
        with pytest.raises(Died):
            box.take(rel, look)
    (folder,) = home.work.iterdir()
    for name in ("a.wav", "a.wav.toml"):
        (home.inbox / name).hardlink_to(folder / name)
    inline_box.live(home)
    assert files_below(home.inbox) == []
    assert [job.settings.transpose for job in jobs_of(home)] == [7.0]
    assert files_below(home.processed) == ["a.wav", "a.wav.toml"]


def test_file_whose_inbox_goes_away_while_it_is_accepted_keeps_its_one_job(home: Home) -> None:
    def check_inbox() -> None:
        if not home.inbox.is_dir():
            raise FolderGone("not mounted")

    drop(home, "a.wav")
    away = home.root / "away"
    with inline_box.opened(home) as box:
        box.sources.check_inbox = check_inbox
        ((rel, look),) = box.candidates().items()
        open_folders = box.sources.open_folders

        def open_folders_as_the_inbox_goes(jobs: Sequence[Job], *, variants: Collection[int] = ()) -> None:
            home.inbox.rename(away)
            open_folders(jobs, variants=variants)

        box.sources.open_folders = open_folders_as_the_inbox_goes  # type: ignore[method-assign]
        with pytest.raises(FolderGone):
            box.take(rel, look)
        with pytest.raises(FolderGone):
            box.ingest.resume()
        box.sources.open_folders = open_folders  # type: ignore[method-assign]
        away.rename(home.inbox)
        box.ingest.resume()
    inline_box.live(home)
    assert [job.state for job in jobs_of(home)] == [JobState.DONE]
    assert files_below(home.processed) == ["a.wav"]


def test_work_folders_that_were_being_made_or_removed_are_tidied_up(home: Home) -> None:
    (home.work / "empty").mkdir()
    (home.work / "begun").mkdir()
    (home.work / "begun" / ".0123.part").write_bytes(b"{")
    (home.work / "unknown").mkdir()
    (home.work / "unknown" / "song.wav").write_bytes(b"mine")
    inline_box.live(home)
    assert files_below(home.work) == ["unknown/song.wav"], "what is not ours stays"
    assert [p.name for p in home.work.iterdir()] == ["unknown"]

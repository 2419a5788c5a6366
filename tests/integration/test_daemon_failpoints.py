"""Daemon or worker die at every named point; after a restart each file has one outcome and one whole output."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import soundfile

from rvc_batch.home import Home
from rvc_batch.jobs import failpoints, publish
from rvc_batch.jobs.invariants import check_home
from rvc_batch.jobs.models import JobState, Outcome
from rvc_batch.jobs.queue import Queue
from tests.daemon_harness import drop, eventually, jobs_of, renders, run_until_idle, running
from tests.job_fakes import files_below

IN_WORKER = tuple(point for point in failpoints.POINTS if point.startswith("render."))
# from here on the result is published: it must not be rendered again
PUBLISHED = (
    failpoints.PUBLISH_LINKED,
    failpoints.PUBLISH_SYNCED,
    failpoints.PUBLISH_TIDIED,
    failpoints.PUBLISH_RECORDED,
    failpoints.SOURCE_PLACED,
    failpoints.SOURCE_COMPLETE,
    failpoints.SOURCE_REMOVED,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def assert_settled(home: Home) -> None:
    """Every file came out once, whole, with its own settings; nothing is left over; every attempt has an outcome."""
    jobs = [job for job in jobs_of(home) if job.voice]
    assert [(j.state, j.settings.transpose) for j in jobs] == [(JobState.DONE, 2.0), (JobState.DONE, 0.0)]
    assert files_below(home.outbox) == ["a.wav", "tenor/b.wav"]
    assert files_below(home.processed) == ["a.wav", "a.wav.toml", "tenor/b.wav"]
    for folder in (home.inbox, home.work):
        assert list(folder.rglob("*.wav*")) == [], "nothing is left"
    assert list(home.work.iterdir()) == []
    assert list(home.root.rglob("*.part")) == []
    assert check_home(home, is_live=False) == []
    assert [soundfile.info(home.outbox / f).frames for f in files_below(home.outbox)] == [1600, 1600]
    queue = Queue.open_readonly(home.database)
    for job in jobs:
        ended = [a.outcome for a in queue.attempts(job.id)]
        assert ended.count(Outcome.DONE) == 1
        assert None not in ended
    queue.close()


def drop_two(home: Home) -> None:
    (home.inbox / "a.wav.toml").write_text("transpose = 2")
    drop(home, "a.wav", seed=1)
    drop(home, "tenor/b.wav", seed=2)


def test_the_walk_is_long_enough() -> None:
    assert len(failpoints.POINTS) == len(set(failpoints.POINTS)) >= 25


@pytest.mark.parametrize("point", failpoints.POINTS)
def test_nothing_is_lost_or_done_twice_when_it_dies(home: Home, point: str) -> None:
    drop_two(home)
    if point == failpoints.SOURCE_EXPLAINED:
        drop(home, "unknown/c.wav", seed=3)
    if point in failpoints.AT_A_START:
        with running(home, "--until-idle", failpoints=f"{failpoints.PUBLISH_LINKED}=kill") as daemon:
            assert daemon.wait() == -9
    with running(home, "--until-idle", failpoints=f"{point}=kill") as daemon:
        if point in IN_WORKER:
            eventually(lambda: any(j.crashes for j in jobs_of(home)), "the worker died")
            daemon.process.kill()
        assert daemon.wait() == -9
    rendered_before = renders(home)
    run_until_idle(home)
    assert_settled(home)
    failed = ["unknown/c.wav", "unknown/c.wav.error.txt"] if point == failpoints.SOURCE_EXPLAINED else []
    assert files_below(home.failed) == failed
    if point in PUBLISHED + failpoints.AT_A_START:
        assert len(rendered_before) == 1
        assert len(renders(home)) == 2


@pytest.mark.parametrize("point", [failpoints.PUBLISH_INTENDED, failpoints.PUBLISH_LINKED])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_machine_fault_while_publishing_costs_no_attempt(
    home: Home, point: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [point]

    def fail_once(name: str) -> None:
        if name in left:
            left.remove(name)
            raise OSError(number, "broken once")

    monkeypatch.setattr(publish, "failpoint", fail_once)
    drop_two(home)
    run_until_idle(home)
    assert not left
    assert_settled(home)
    assert files_below(home.failed) == []
    assert len(renders(home)) == 3
    assert all(j.attempt == 1 for j in jobs_of(home))

"""A long job that is interrupted goes on where it was, through the real daemon, with the bytes it would have had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import rvc_batch
from rvc_batch.engine.dialect import DIALECTS, RVC_2023
from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState, Outcome
from rvc_batch.jobs.queue import Queue
from tests.daemon_harness import ROOT, jobs_of, running
from tests.interrupted_engine import SHORT_CUTS

SPEECH = ROOT / "tests" / "golden" / "inputs" / "long_100s.flac"
SECONDS = 5  # three segments: cuts lie near 2 and 4 s


@pytest.fixture
def home(tmp_path: Path, checkpoints: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setitem(DIALECTS, RVC_2023.name, SHORT_CUTS)  # for the run that is not interrupted
    home = Home(tmp_path / "home")
    home.create()
    tiny = checkpoints("tiny")
    for name in ("hubert_base.pt", "rmvpe.pt"):
        shutil.copy(tiny / name, home.models)
    shutil.copy(tiny / "voices" / "v2_32k_f0_feat48.pth", home.voices / "alto.pth")
    wave, rate = soundfile.read(SPEECH, stop=SECONDS * 16_000, dtype="float32")
    soundfile.write(home.state / "long.wav", np.ascontiguousarray(wave), rate)
    (home.state / "long.wav").rename(home.inbox / "long.wav")
    return home


def attempts(home: Home) -> tuple[JobState, list[tuple[Outcome | None, set[str]]]]:
    """Return the state of the only job, and of each attempt its outcome and stages."""
    (job,) = jobs_of(home)
    queue = Queue.open_readonly(home.database)
    try:
        return job.state, [(a.outcome, set(a.stage_seconds)) for a in queue.attempts(job.id)]
    finally:
        queue.close()


def uninterrupted(home: Home, folder: Path) -> bytes:
    """Return what `convert` makes of the same source."""
    target = folder / "expected.wav"
    report = rvc_batch.convert(home.processed / "long.wav", target, voice="alto", home=home.root)
    assert report.segments == 3
    return target.read_bytes()


def test_a_killed_worker_costs_the_segment_it_was_at(home: Home, tmp_path: Path) -> None:
    with running(home, "--until-idle", "--engine", "tests.interrupted_engine:open_killed") as daemon:
        assert daemon.wait(300) == 0
    state, tried = attempts(home)
    assert (home.state / "interrupted").exists()
    assert state is JobState.DONE
    assert [outcome for outcome, _ in tried] == [Outcome.CRASHED, Outcome.DONE]
    assert "synth" in tried[1][1]
    assert tried[1][1].isdisjoint({"decode", "filter", "pitch"})
    assert (home.outbox / "long.wav").read_bytes() == uninterrupted(home, tmp_path)


def test_a_stopped_daemon_goes_on_after_its_restart(home: Home, tmp_path: Path) -> None:
    arguments = ("--until-idle", "--engine", "tests.interrupted_engine:open_terminated")
    with running(home, *arguments) as daemon:
        assert daemon.wait(300) == 0
    state, tried = attempts(home)
    assert (home.state / "interrupted").exists()
    assert state is JobState.QUEUED
    assert [outcome for outcome, _ in tried] == [Outcome.INTERRUPTED]
    assert not (home.outbox / "long.wav").exists()
    with running(home, *arguments) as daemon:
        assert daemon.wait(300) == 0
    state, tried = attempts(home)
    assert state is JobState.DONE
    assert tried[1][1].isdisjoint({"decode", "filter", "pitch"})
    assert (home.outbox / "long.wav").read_bytes() == uninterrupted(home, tmp_path)

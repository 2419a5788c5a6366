"""A worker that fails, dies, hangs, leaks or cannot start: one attempt of one job is lost, never more."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from rvc_batch.home import Home
from rvc_batch.jobs.lock import holder_of
from rvc_batch.jobs.models import Attempt, Job, JobState, Outcome
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.worker import WORKER_LOCK
from tests.daemon_harness import (
    drop,
    eventually,
    jobs_of,
    renders,
    run_until_idle,
    running,
)
from tests.job_fakes import files_below


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def by_name(home: Home) -> dict[str, Job]:
    return {job.source_name: job for job in jobs_of(home)}


def attempts_of(home: Home, job: Job) -> list[Attempt]:
    queue = Queue.open_readonly(home.database)
    try:
        return queue.attempts(job.id)
    finally:
        queue.close()


def outcomes(home: Home, job: Job) -> list[Outcome | None]:
    return [a.outcome for a in attempts_of(home, job)]


def worker_pids(home: Home) -> list[int]:
    return list(dict.fromkeys(int(line.split()[0]) for line in renders(home)))


def test_each_kind_of_death_costs_one_attempt_of_one_job(home: Home) -> None:
    deaths = {
        "segfault-once.wav": signal.SIGSEGV,
        "abort-once.wav": signal.SIGABRT,
        "kill-once.wav": signal.SIGKILL,
    }
    for seed, name in enumerate([*deaths, "good.wav"]):
        drop(home, name, seed=seed)
    run_until_idle(home)
    jobs = by_name(home)
    assert {j.state for j in jobs.values()} == {JobState.DONE}
    assert files_below(home.outbox) == sorted(jobs)
    assert outcomes(home, jobs["good.wav"]) == [Outcome.DONE]
    for name, number in deaths.items():
        first, second = attempts_of(home, jobs[name])
        assert (first.outcome, first.signal, second.outcome) == (Outcome.CRASHED, number, Outcome.DONE)
        assert first.error is not None
        assert number.name in first.error.message
    assert len(worker_pids(home)) == 4
    segfault = attempts_of(home, jobs["segfault-once.wav"])[0].error
    assert segfault is not None
    assert "fakes.py" in segfault.message  # the stacks faulthandler left


def test_second_death_fails_the_job_and_the_queue_goes_on(home: Home) -> None:
    drop(home, "kill-a.wav")
    drop(home, "z.wav", seed=1)
    run_until_idle(home)
    jobs = by_name(home)
    assert jobs["kill-a.wav"].state is JobState.FAILED
    assert jobs["kill-a.wav"].error is not None
    assert jobs["kill-a.wav"].error.code == "E_CRASH_REPEATED"
    assert outcomes(home, jobs["kill-a.wav"]) == [Outcome.CRASHED] * 2
    assert jobs["z.wav"].state is JobState.DONE
    assert files_below(home.outbox) == ["z.wav"]
    assert files_below(home.failed) == ["kill-a.wav", "kill-a.wav.error.txt"]


def test_errors_cost_what_their_class_says(home: Home) -> None:
    for seed, name in enumerate(
        ["raise-a.wav", "raise-once.wav", "invalid-once.wav", "short-a.wav", "append-once.wav"]
    ):
        drop(home, name, seed=seed)
    run_until_idle(home)
    jobs = by_name(home)
    assert outcomes(home, jobs["raise-a.wav"]) == [Outcome.RETRY, Outcome.RETRY, Outcome.FAILED]
    failed = attempts_of(home, jobs["raise-a.wav"])[0].error
    assert failed is not None
    assert failed.code == "E_INTERNAL"
    assert "fakes.py" in failed.traceback
    for name in ("raise-once.wav", "invalid-once.wav", "append-once.wav"):
        assert outcomes(home, jobs[name]) == [Outcome.RETRY, Outcome.DONE], name
    changed = attempts_of(home, jobs["append-once.wav"])[0].error
    assert changed is not None
    assert changed.code == "E_SOURCE_CHANGED"
    assert jobs["short-a.wav"].error is not None
    assert jobs["short-a.wav"].error.code == "E_OUTPUT_INVALID"
    assert len(worker_pids(home)) == 1
    assert files_below(home.outbox) == ["append-once.wav", "invalid-once.wav", "raise-once.wav"]


def test_full_disk_pauses_the_queue_and_work_resumes_by_itself(home: Home) -> None:
    drop(home, "enospc-once.wav")
    drop(home, "z.wav", seed=1)
    run_until_idle(home)
    jobs = by_name(home)
    assert {j.state for j in jobs.values()} == {JobState.DONE}
    assert jobs["enospc-once.wav"].attempt == 1  # the other one was given back
    first, second = attempts_of(home, jobs["enospc-once.wav"])
    assert first.error is not None
    assert (first.error.code, second.outcome) == ("E_DISK_FULL", Outcome.DONE)
    paused_until = first.ended_at or 0
    assert attempts_of(home, jobs["z.wav"])[0].started_at >= paused_until + 0.3
    assert files_below(home.outbox) == ["enospc-once.wav", "z.wav"]


def test_missing_outbox_pauses_and_is_not_created(home: Home) -> None:
    with running(home):
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        home.outbox.rename(home.root / "unmounted")
        drop(home, "a.wav")
        eventually(lambda: bool(jobs_of(home)) and jobs_of(home)[0].claim_no >= 2, "it was tried twice")
        assert not home.outbox.exists()
        assert jobs_of(home)[0].attempt <= 1
        (home.root / "unmounted").rename(home.outbox)
        eventually(lambda: jobs_of(home)[0].state is JobState.DONE, "it is done")
    assert jobs_of(home)[0].attempt == 1


def test_hung_worker_is_ended_with_its_stacks_and_replaced(home: Home) -> None:
    drop(home, "hang-once.wav")
    drop(home, "z.wav", seed=1)
    run_until_idle(home, stuck_after_seconds=2.0)
    jobs = by_name(home)
    assert {j.state for j in jobs.values()} == {JobState.DONE}
    first, second = attempts_of(home, jobs["hang-once.wav"])
    assert (first.outcome, second.outcome) == (Outcome.CRASHED, Outcome.DONE)
    assert first.error is not None
    assert "no progress for 2 s" in first.error.message
    assert "_misbehave" in first.error.message


def test_worker_is_recycled_after_its_number_of_jobs_and_above_its_memory(home: Home) -> None:
    for number in range(4):
        drop(home, f"a{number}.wav", seed=number)
    run_until_idle(home, recycle_after_jobs=2)
    assert len(worker_pids(home)) == 2
    drop(home, "leak-1.wav", seed=10)
    drop(home, "leak-2.wav", seed=11)
    run_until_idle(home, rss_limit_mb=60)
    assert len(worker_pids(home)) == 4
    assert {j.state for j in jobs_of(home)} == {JobState.DONE}
    assert all(j.attempt == 1 for j in jobs_of(home))


def test_silent_worker_ends_with_its_daemon_and_the_job_is_rendered_once_more(home: Home) -> None:
    with running(home) as daemon:
        drop(home, "hang-once.wav")
        eventually(lambda: (home.state / "fake-hang-once.wav").exists(), "the job is at work")
        daemon.process.send_signal(signal.SIGKILL)
        eventually(lambda: holder_of(home.state / WORKER_LOCK) is None, "the worker is gone", 10)
    (job,) = jobs_of(home)
    assert job.state is JobState.RUNNING
    assert (home.work / job.public_id / "hang-once.wav").is_file()
    run_until_idle(home)
    assert outcomes(home, job) == [Outcome.CRASHED, Outcome.DONE]
    assert files_below(home.outbox) == ["hang-once.wav"]


def test_stopped_worker_of_a_dead_daemon_is_ended_before_another_starts(home: Home) -> None:
    with running(home) as daemon:
        drop(home, "slow-3-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the job is at work")
        worker = worker_pids(home)[0]
        os.kill(worker, signal.SIGSTOP)
        daemon.process.send_signal(signal.SIGKILL)
    run_until_idle(home)
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE
    assert jobs_of(home)[0].state is JobState.DONE
    assert files_below(home.outbox) == ["slow-3-a.wav"]


def test_engine_that_cannot_start_is_tried_again_slowly_and_reported(home: Home) -> None:
    drop(home, "a.wav")
    with running(home, "--engine", "open_broken_engine") as daemon:

        def last_error() -> str:
            path = home.state / "daemon.json"
            return str(json.loads(path.read_text())["last_error"]) if path.exists() else ""

        eventually(lambda: "E_MODEL_MISSING: rmvpe.pt is not in models/" in last_error(), "the reason is reported")
        eventually(lambda: bool(jobs_of(home)), "files are taken all the same")
        assert jobs_of(home)[0].claim_no == 0
        (home.state / "models-are-there").touch()
        eventually(lambda: jobs_of(home)[0].state is JobState.DONE, "work begins when the models are there")
        eventually(lambda: last_error() == "None", "the error is gone")
        assert daemon.process.poll() is None


def test_engine_that_kills_its_process_does_not_spin_and_ends_a_run_until_idle(home: Home) -> None:
    drop(home, "a.wav")
    with running(home, "--until-idle", "--engine", "open_dying_engine") as daemon:
        assert daemon.wait() != 0
    log = (home.state / "test.log").read_text()
    assert "the worker cannot start" in log
    assert "SIGABRT" in log
    assert "next try in 0.1 s" in log
    assert "next try in 0.2 s" in log
    assert log.count(" started\n") <= 4
    assert jobs_of(home)[0].state is JobState.QUEUED

"""Open files and sleep: what the daemon asks of its own process and of the clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.config import LibrarySettings, Settings, WorkerSettings
from rvc_batch.home import Home
from rvc_batch.jobs.machine import SLEEP_GAP_S, SleepWatch
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.request import Choices
from rvc_batch.jobs.supervisor import Limits, Supervisor
from tests.daemon_harness import ROOT, drop, jobs_of

LIMITS = Limits()


@pytest.mark.parametrize(("limits", "expected"), [("64:4096", 4096), ("256:10000", 8192), ("64:64", 64)])
def test_the_limit_of_open_files_is_raised_as_far_as_allowed(limits: str, expected: int) -> None:
    code = "from rvc_batch.jobs.machine import raise_open_files as r; print(r())"
    done = _limited(limits, "-c", code)
    assert int(done.stdout) == expected


def test_more_files_than_descriptors_are_no_trouble(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    for seed in range(90):
        drop(home, f"{seed}.wav", seed=seed, seconds=0.02)
    _limited("64:64", "-m", "tests.daemon_harness", str(home.root), "--until-idle")
    assert [job.state for job in jobs_of(home)] == [JobState.DONE] * 90


def _limited(limits: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    soft, hard = map(int, limits.split(":"))
    set_limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
    command = [sys.executable, "-c", set_limit + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)


def test_only_a_gap_between_the_clocks_is_sleep() -> None:
    watch = SleepWatch(100.0, 1e9)
    assert watch.gap(160.0, 1e9 + 60.0) == 0.0
    assert watch.gap(161.0, 1e9 + 61.0 + SLEEP_GAP_S) == 0.0, "time service"
    assert watch.gap(162.0, 1e9 + 4000.0) == pytest.approx(4000 - 62 - SLEEP_GAP_S)
    assert watch.gap(163.0, 1e9 + 4001.0) == 0.0, "told once"
    assert watch.gap(164.0, 1e9) == 0.0, "set back"


class Nobody:
    """A worker without work, a queue that counts rescues, and both clocks."""

    pid, has_ended, is_alive = 1, False, True

    def __init__(self) -> None:
        self.monotonic, self.wall, self.rescues = 100.0, 1e9, 0

    def pass_time(self, awake: float, asleep: float = 0.0) -> None:
        self.monotonic += awake
        self.wall += awake + asleep

    def rescue_expired(self) -> list[Any]:
        self.rescues += 1
        return []

    def receive(self, _seconds: float, _wakeup: int) -> list[Any]:
        return []

    def rss(self) -> int:
        return 1

    def claim(self, *_: object, **__: object) -> None:
        return None

    def trim(self) -> None:
        return None

    def worker_heartbeat(self, *_: object, **__: object) -> None:
        return None


@pytest.fixture
def box(tmp_path: Path) -> Iterator[tuple[Supervisor, Nobody]]:
    nobody: Any = Nobody()
    supervisor = Supervisor(
        Home(tmp_path),
        Settings(),
        nobody,
        nobody,
        choices=lambda: Choices((), "", Settings().conversion_settings()),
        monotonic=lambda: nobody.monotonic,
        wall=lambda: nobody.wall,
    )
    supervisor._worker, supervisor._state = nobody, "idle"
    yield supervisor, nobody
    supervisor.close()


def test_after_sleep_nobody_is_taken_for_dead_before_a_lease_has_passed(box: tuple[Supervisor, Nobody]) -> None:
    supervisor, nobody = box
    supervisor.tick(0)
    nobody.pass_time(LIMITS.rescue)
    supervisor.tick(0)
    assert nobody.rescues == 2, "in ordinary times"
    nobody.pass_time(LIMITS.rescue, asleep=3600)
    supervisor.tick(0)
    nobody.pass_time(LIMITS.lease - 1)
    supervisor.tick(0)
    assert nobody.rescues == 2, "one lease of grace"
    nobody.pass_time(LIMITS.idle_heartbeat)
    supervisor.tick(0)
    assert nobody.rescues == 3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(), ""),
        (Settings(default_voice="amy"), ""),
        (Settings(worker=WorkerSettings(max_attempts=1)), "the settings changed"),
        (Settings(library=LibrarySettings(roots=("shelf",))), "the settings changed"),
    ],
)
def test_worker_is_replaced_when_settings_that_it_reads_change(
    box: tuple[Supervisor, Nobody], settings: Settings, reason: str
) -> None:
    supervisor, _ = box
    supervisor.reload(settings)
    assert supervisor._retiring == reason

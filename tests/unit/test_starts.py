"""Crash loops end: five quick starts that did not last, whatever ended them, and the service gives up with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_batch.cli import exit_code
from rvc_batch.errors import DatabaseUnusable, HomeInvalid, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.starts import MAX_STARTS, SERIES_GAP_S, STEADY_S, LastStart, Starts, read_last_start
from rvc_batch.jobs.status import Word, read_status
from tests.queue_fakes import EPOCH, FakeClock


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.create()
    return home


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def broken() -> None:
    raise SettingsInvalid("line 3: depth: expected a number")


def start(home: Home, clock: FakeClock, serve: object = broken) -> bool:
    """Start once; tell whether the exit would be 0."""
    try:
        Starts(home, clock).run(serve)  # type: ignore[arg-type]
    except SettingsInvalid:
        return False
    return True


def last(home: Home) -> LastStart:
    found = read_last_start(home)
    assert found is not None
    return found


def test_fifth_quick_failure_is_an_exit_of_zero_with_the_reason_on_disk(home: Home, clock: FakeClock) -> None:
    for number in range(1, MAX_STARTS):
        assert not start(home, clock)
        assert (last(home).starts, last(home).has_given_up) == (number, False)
        clock.step(30)
    assert start(home, clock)
    found = last(home)
    assert (found.starts, found.code, found.message) == (5, "E_CONFIG", "line 3: depth: expected a number")
    assert found.has_given_up


def test_slow_failures_never_add_up(home: Home, clock: FakeClock) -> None:
    for _ in range(3 * MAX_STARTS):
        assert not start(home, clock)
        clock.step(SERIES_GAP_S)


def test_start_by_a_person_after_giving_up_begins_a_new_series(home: Home, clock: FakeClock) -> None:
    assert [start(home, clock) for _ in range(MAX_STARTS + 1)] == [False] * 4 + [True, False]
    assert last(home).starts == 1


def test_starts_that_were_killed_count_too(home: Home, clock: FakeClock) -> None:
    calls: list[int] = []

    def killed() -> None:
        calls.append(1)
        os.kill(os.getpid(), 9)

    for _ in range(MAX_STARTS):
        pid = os.fork()
        if pid == 0:
            Starts(home, clock).run(killed)
            os._exit(77)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert start(home, clock, lambda: calls.append(2))  # the sixth does not even try
    assert calls == []
    assert last(home).sentence() == (
        "the service gave up after 5 failed starts: E_INTERNAL: it ended without a word, as if killed"
    )


def test_daemon_that_ends_on_purpose_leaves_no_record(home: Home, clock: FakeClock) -> None:
    assert not start(home, clock)
    assert start(home, clock, lambda: None)
    assert read_last_start(home) is None


def test_daemon_that_served_for_a_minute_has_started(home: Home, clock: FakeClock) -> None:
    monotonic = FakeClock()
    starts = Starts(home, clock, monotonic)

    def serve() -> None:
        monotonic.step(STEADY_S - 1)
        starts.beat()
        assert last(home).starts == 1
        monotonic.step(1)
        starts.beat()
        assert read_last_start(home) is None
        raise SettingsInvalid("much later")

    with pytest.raises(SettingsInvalid):
        starts.run(serve)
    assert read_last_start(home) is None


def test_damaged_record_does_not_keep_the_service_from_starting(home: Home, clock: FakeClock) -> None:
    (home.state / "last_start_error.json").write_text("[]")
    assert not start(home, clock)
    assert last(home).starts == 1


def test_missing_state_folder_is_not_counted_and_not_hidden(tmp_path: Path, clock: FakeClock) -> None:
    home = Home(tmp_path / "unmounted")
    for _ in range(MAX_STARTS + 2):
        with pytest.raises(HomeInvalid):
            Starts(home, clock).run(_no_home)


def _no_home() -> None:
    raise HomeInvalid("cannot create")


def test_status_shows_why_the_service_gave_up(home: Home, clock: FakeClock) -> None:
    for _ in range(MAX_STARTS):
        start(home, clock)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.DOWN, 2)
    assert found.reason == ("the service gave up after 5 failed starts: E_CONFIG: line 3: depth: expected a number")


def test_status_tells_a_start_under_way_from_one_that_died(home: Home) -> None:
    assert LastStart(starts=2, started_at=EPOCH, pid=os.getpid()).sentence().startswith("the service is starting")
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert "ended without a word" in LastStart(starts=2, started_at=EPOCH, pid=process.pid).sentence()


def test_exit_codes_tell_configuration_from_machine() -> None:
    assert exit_code(SettingsInvalid()) == 78
    assert exit_code(DatabaseUnusable()) == 75

"""The status record and its text: one right word whatever is broken, and no claim it cannot back."""

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from rvc_batch.cli.status_text import lines
from rvc_batch.config import HookSettings
from rvc_batch.errors import RetryClass
from rvc_batch.home import Home
from rvc_batch.jobs.models import Arrival, ArrivalVerdict, JobState
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.status import Status, Word, notes, read_status
from tests.cli_harness import run
from tests.queue_fakes import EPOCH, LEASE_S, FakeClock, claimed, error, finished, new_job, queued
from tests.status_fakes import beat, dead_pid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def queue(home: Home, clock: FakeClock) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=clock)
    yield opened
    opened.close()


def text(status: Status) -> str:
    return "\n".join(lines(status))


# --- the word ---


def test_an_idle_box_is_ok(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code, found.command) == (Word.OK, 0, "")
    assert text(found).startswith("OK ")


def test_a_box_with_work_is_busy(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue, "a")
    assert read_status(home, clock=clock).reason == "1 waiting"
    queued(queue, "b")
    claimed(queue)
    found = read_status(home, clock=clock)
    assert (found.word, found.reason, found.exit_code) == (Word.BUSY, "converting 1, 1 waiting", 0)


def test_a_draining_box_says_so_until_it_is_empty_and_then_that_it_takes_nothing(
    home: Home, queue: Queue, clock: FakeClock
) -> None:
    beat(home)
    queued(queue)
    queue.drain()
    found = read_status(home, clock=clock)
    assert (found.word, found.reason) == (Word.BUSY, "draining, nothing new is taken: 1 waiting")
    finished(queue, claimed(queue))
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code, found.command) == (Word.PAUSED, 1, "rvc-batch resume")
    assert found.reason.startswith("drained: every job has ended")


def test_a_box_that_never_ran_is_down_and_told_how_to_start(home: Home, clock: FakeClock) -> None:
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code, found.command) == (Word.DOWN, 2, "rvc-batch run")
    assert not home.database.exists()


def test_open_files_are_shown(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home, open_files=31, open_files_limit=8192)
    assert "31 of 8192 files open" in text(read_status(home, clock=clock))


def test_a_dead_daemon_with_a_full_queue_is_down_not_idle(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home, pid=dead_pid())
    queued(queue, "a")
    queued(queue, "b")
    claimed(queue)
    clock.step(240)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.DOWN, 2)
    assert found.reason.endswith("is gone, its last word is 4 min old; 2 jobs wait")
    assert f"nobody has worked on it for {240 - LEASE_S:.0f} s" not in text(found)
    assert "nobody has worked on it for 4 min" in text(found)


def test_a_reused_process_number_is_not_the_daemon(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home, at=EPOCH - 100, process_start=psutil.Process().create_time() - 5000)
    assert read_status(home, clock=clock).word is Word.DOWN


def test_a_daemon_that_lives_but_says_nothing_is_degraded(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home, at=EPOCH - 100)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.DEGRADED, 1)
    assert "lives but has said nothing for 100 s" in found.reason
    assert "heartbeat 100 s ago" in text(found)


def test_a_clock_that_was_set_back_makes_no_negative_age(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home, at=EPOCH + 500)
    queued(queue)
    claimed(queue)
    clock.step(-1000)
    found = read_status(home, clock=clock)
    assert found.word is Word.BUSY
    assert found.daemon.age_s == 0.0
    assert "-" not in text(found).replace("rvc-batch", "").split("NOW")[1]


def test_a_pause_by_hand_names_the_command_that_ends_it(home: Home, queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    queue.pause("disk swap")
    clock.step(90)
    beat(home, at=clock.now)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.PAUSED, 1)
    assert found.reason == "disk swap · for 90 s, the queue keeps 1 job"
    assert found.command == "rvc-batch resume"


def test_a_pause_by_a_fault_says_that_it_ends_by_itself(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue)
    queue.fail(claimed(queue), error("E_DISK_FULL", "no space left on /out"), retry=RetryClass.PAUSE)
    found = read_status(home, clock=clock)
    assert (found.word, found.command) == (Word.PAUSED, "")
    assert "no space left on /out" in found.reason
    assert "resumes by itself" in found.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"last_error": "the worker cannot start: E_NO_DEVICE: no Metal device"}, "no Metal device"),
        ({"watcher": {"mode": "inotify", "last_rescan_at": None, "error": "inbox: permission denied"}}, "permission"),
    ],
)
def test_trouble_the_daemon_reports_is_degraded(
    home: Home, queue: Queue, clock: FakeClock, change: dict[str, object], reason: str
) -> None:
    beat(home, **change)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.DEGRADED, 1)
    assert reason in found.reason


def test_a_missing_outbox_is_degraded(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    home.outbox.rmdir()
    assert read_status(home, clock=clock).reason == f"{home.outbox} is missing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 2}', b"\xff\xfe"])
def test_a_heartbeat_file_that_cannot_be_used_is_down_with_the_reason(
    home: Home, queue: Queue, clock: FakeClock, content: bytes
) -> None:
    (home.state / "daemon.json").write_bytes(content)
    found = read_status(home, clock=clock)
    assert found.word is Word.DOWN
    assert "daemon.json" in found.reason


# --- the database in trouble ---


def test_jobs_that_cannot_be_read_are_exit_code_3(home: Home, clock: FakeClock) -> None:
    beat(home)
    home.database.write_bytes(b"not a database at all" * 50)
    found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.DEGRADED, 3)
    assert "is not a job database" in found.reason
    assert "Apple M4 Pro" in text(found), "the other facts are still there"


def test_a_database_that_is_gone_under_a_living_daemon_is_said_so(home: Home, clock: FakeClock) -> None:
    beat(home)
    found = read_status(home, clock=clock)
    assert (found.exit_code, found.word) == (3, Word.DEGRADED)
    assert not home.database.exists()


def test_a_pending_write_of_another_program_does_not_hide_the_jobs(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue)
    with closing(sqlite3.connect(home.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert read_status(home, clock=clock).reason == "1 waiting"


def test_a_database_held_by_another_program_is_named_as_such(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queue.close()
    with closing(sqlite3.connect(home.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        (home.database.parent / "jobs.sqlite3-wal").touch()  # so that it is not taken for a file at rest
        found = read_status(home, clock=clock)
    assert (found.word, found.exit_code) == (Word.DEGRADED, 3)
    assert "locked by another process" in found.reason


def test_a_newer_database_is_read_and_said_to_be_newer(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue)
    queue.close()
    with closing(sqlite3.connect(home.database)) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '0999'")
        other.execute("UPDATE meta SET value = '7.1.0' WHERE key = 'version'")
        other.execute("ALTER TABLE jobs ADD COLUMN mood TEXT")
    found = read_status(home, clock=clock)
    assert found.reason == "1 waiting"
    assert any("made by rvc-batch 7.1.0 (schema 0999)" in note for note in notes(found))


def test_a_newer_database_without_our_columns_is_exit_code_3(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queue.close()
    with closing(sqlite3.connect(home.database)) as other, other:
        other.execute("ALTER TABLE jobs RENAME COLUMN voice TO singer")
    assert read_status(home, clock=clock).exit_code == 3


def test_status_changes_no_file(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue)
    queue.close()

    def everything() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in home.root.rglob("*")}

    before = everything()
    read_status(home, clock=clock)
    assert everything() == before


# --- facts ---


def test_speed_and_time_left_need_three_finished_jobs_of_every_voice(
    home: Home, queue: Queue, clock: FakeClock
) -> None:
    beat(home)
    for n in range(3):
        queued(queue, f"{n}.wav")
        assert read_status(home, clock=clock).left is None
        finished(queue, claimed(queue), seconds_in=60.0, wall_seconds=5.0)
    queued(queue, "next.wav", seconds_in=600.0)
    found = read_status(home, clock=clock)
    assert found.left is not None
    assert found.left.low == found.left.high == pytest.approx(50.0)
    assert "· about 50 s of work left" in text(found)
    assert "speed 12.0x (p10 12.0x)" in text(found)
    queued(queue, "other.wav", voice="tom", seconds_in=600.0)
    assert read_status(home, clock=clock).left is None, "tom has never been heard"


def test_a_job_of_unknown_length_leaves_no_estimate(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    for n in range(3):
        queued(queue, f"{n}.wav")
        finished(queue, claimed(queue))
    queued(queue, "next.wav", seconds_in=None)
    assert read_status(home, clock=clock).left is None


def test_a_running_job_shows_progress_but_never_100_percent(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue, seconds_in=60.0)
    job = claimed(queue)
    assert "0 %   starting" in text(read_status(home, clock=clock))
    clock.step(5)
    beat(home, at=clock.now)
    queue.heartbeat(job, lease_seconds=LEASE_S, stage="synth", progress_done=30.0, progress_total=60.0)
    shown = text(read_status(home, clock=clock))
    assert "[████████░░░░░░░░] 50 %   synth" in shown
    assert "at 6.0x realtime   0:05 elapsed   0:05 left   attempt 1/3" in shown
    queue.heartbeat(job, lease_seconds=LEASE_S, stage="publish", progress_done=60.0)
    assert "99 %   publish" in text(read_status(home, clock=clock))


def test_a_running_job_that_is_to_be_cancelled_says_so(home: Home, queue: Queue, clock: FakeClock) -> None:
    queued(queue)
    job = claimed(queue)
    overview = read_status(home, clock=clock).database.overview
    assert overview is not None
    assert overview.running[0].cancel_requested is False
    queue.cancel(job.id)
    found = read_status(home, clock=clock)
    assert found.database.overview is not None
    assert found.database.overview.running[0].cancel_requested is True
    assert "to be cancelled at the next segment" in text(found)


def test_next_is_in_the_order_of_the_claim_and_says_when_and_why(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)
    queued(queue, "late.wav")
    queue.fail(claimed(queue), error("E_OUTPUT_INVALID"), retry=RetryClass.LATER)
    for n in range(4):
        queued(queue, f"{n}.wav", priority=n)
    found = read_status(home, clock=clock)
    assert found.database.overview is not None
    assert [j.source_name for j in found.database.overview.next] == ["anna/3.wav", "anna/2.wav", "anna/1.wav"]
    assert "… 2 more (5:00 of audio in all)" in text(found)
    for _ in range(4):
        queue.cancel(claimed(queue).id)
    assert "#1 anna/late.wav → anna   1:00   in 1" in text(read_status(home, clock=clock))
    assert "after E_OUTPUT_INVALID, attempt 2/3" in text(read_status(home, clock=clock))


def test_the_last_day_is_summed_up_and_older_jobs_are_left_out(home: Home, queue: Queue, clock: FakeClock) -> None:
    queued(queue, "old.wav")
    finished(queue, claimed(queue))
    clock.step(90_000)
    for n in range(3):
        queued(queue, f"{n}.wav")
        clock.step(60)
        finished(queue, claimed(queue))
    queued(queue, "bad.wav")
    queue.fail(claimed(queue), error("E_INPUT_EMPTY", "the file is empty"), retry=RetryClass.NEVER)
    beat(home, at=clock.now)
    shown = text(read_status(home, clock=clock))
    assert "LAST 24 h   done 3   failed 1   speed 10.0x (p10 10.0x)   wait median 60 s" in shown
    assert "synth 55 %   features 36 %   decode 9 %" in shown
    assert "FAILED" in shown
    assert "#5 anna/bad.wav  E_INPUT_EMPTY  pitch  attempt 1/3, 0 s ago  the file is empty" in shown
    assert "rvc-batch retry 5" in shown
    assert "Traceback" not in shown


def test_files_that_wait_are_explained(home: Home, queue: Queue, clock: FakeClock) -> None:
    beat(home)

    def arrival(path: bytes, verdict: ArrivalVerdict, reason: str) -> Arrival:
        return Arrival(
            path=path, first_seen=EPOCH - 300, last_change=EPOCH - 240, size=9, verdict=verdict, reason=reason
        )

    queue.replace_arrivals(
        [
            arrival(b"night.wav", ArrivalVerdict.INCOMPLETE, "61 % there"),
            arrival(b"x.wav", ArrivalVerdict.SETTLING, "new"),
        ]
    )
    shown = text(read_status(home, clock=clock))
    assert "1 incomplete, 1 settling" in shown
    assert "NOTE  inbox/night.wav is incomplete: 61 % there; unchanged for 4 min" in shown


def test_hooks_that_do_not_answer_are_said(home: Home, queue: Queue, clock: FakeClock) -> None:
    hook = HookSettings(command=("/bin/tell",), on=("done",))
    outbox = queue.notices()
    outbox.collect([hook])
    queued(queue)
    finished(queue, claimed(queue))
    outbox.collect([hook])
    beat(home)
    assert read_status(home, clock=clock).database.hooks_behind == ()
    outbox.refused(outbox.due()[0], "/bin/tell ended with 1")
    found = read_status(home, clock=clock)
    assert found.word is Word.OK
    assert "hook /bin/tell was not told 1 event: /bin/tell ended with 1" in notes(found)


def test_names_cannot_drive_the_terminal(home: Home, queue: Queue, clock: FakeClock) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202egnp.wav\nOK"
    queued(queue, evil)
    queue.fail(claimed(queue), error("E_INPUT_NOT_AUDIO", evil), retry=RetryClass.NEVER)
    queued(queue, evil, content="2", voice="v\x1b[31m")
    queued(queue, evil, content="3")
    claimed(queue)
    beat(home, last_error=evil)
    shown = text(read_status(home, clock=clock))
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown


def test_every_count_is_in_the_json(home: Home, queue: Queue, clock: FakeClock) -> None:
    from rvc_batch.cli.printing import as_json

    beat(home)
    queue.submit(new_job())
    record = json.loads(as_json(status=read_status(home, clock=clock)))
    assert record["version"] == 1
    assert record["status"]["word"] == "OK"
    assert record["status"]["database"]["overview"]["counts"] == {s.value: int(s == "ingesting") for s in JobState}
    assert record["status"]["database"]["pause"]["until"] is None
    assert set(record["status"]) == {field.name for field in dataclasses.fields(Status)}


# --- the command ---


def run_status(home: Home, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rvc_batch", "--home", str(home.root), "status", *options]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=60, check=False
    )


def test_the_command_exits_with_the_code_and_is_plain_outside_a_terminal(home: Home, queue: Queue) -> None:
    done = run_status(home)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("DOWN   the daemon is not running")
    assert "\x1b" not in done.stdout
    assert json.loads(run_status(home, "--json").stdout)["status"]["exit_code"] == 2


def test_a_terminal_gets_a_coloured_word_unless_no_color_is_set(
    home: Home, queue: Queue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert text(read_status(home, clock=clock)).startswith("\x1b[1;31mDOWN\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert text(read_status(home, clock=clock)).startswith("DOWN")


def test_watch_draws_until_ctrl_c_and_exits_as_it_was_last(
    home: Home, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rvc_batch.cli import status as command

    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", wait)
    drawn = run(home, "status", "--watch", "--interval", "5", code=2).stdout
    assert waits == [5.0, 5.0, 5.0]
    assert drawn.count("DOWN   the daemon is not running") == 3
    assert "\x1b" not in drawn, "not a terminal"
    waits.clear()
    objects = run(home, "status", "--watch", "--json", code=2).stdout.splitlines()
    assert [json.loads(line)["version"] for line in objects] == [1, 1, 1]


def test_watch_draws_over_the_last_one_in_a_terminal(
    home: Home, queue: Queue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rvc_batch.cli import status as command

    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True, raising=False)
    command._draw(read_status(home), json=False)
    assert capsys.readouterr().out.startswith("\x1b[H\x1b[J")


def test_status_loads_no_framework_and_nothing_slow(home: Home, queue: Queue) -> None:
    queued(queue)
    code = (
        "import sys\nfrom rvc_batch.cli import main\n"
        f"sys.argv = ['rvc-batch', '--home', {str(home.root)!r}, 'status']\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert e.code == 2, e.code\n"
        "print([m for m in ('mlx', 'torch', 'faiss', 'alembic', 'watchdog', 'scipy', 'soundfile', 'numpy', 'rich',"
        " 'soxr', 'psutil', 'tqdm', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "1 job waits" in done.stdout

"""The whole daemon with a fake engine, in a process of its own: what users rely on from drop to result."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import soundfile

from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState
from rvc_batch.jobs.queue import Queue
from tests.daemon_harness import (
    PATIENCE,
    ROOT,
    drop,
    eventually,
    jobs_of,
    renders,
    run_until_idle,
    running,
)
from tests.job_fakes import files_below, write_audio


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def is_done(home: Home, count: int = 1) -> bool:
    return [j.state for j in jobs_of(home)] == [JobState.DONE] * count


def heartbeat(home: Home) -> dict[str, object]:
    record: dict[str, object] = json.loads((home.state / "daemon.json").read_text())
    return record


def test_twenty_files_come_out_once_each_whatever_their_names(home: Home) -> None:
    names = [f"alto/take {n}.wav" for n in range(8)] + [f"tenor/cd {n % 2}/track {n}.wav" for n in range(6)]
    names += [
        "日本\u202e.wav",
        "-rf.wav",
        " lead.wav",
        "new\nline\x1b.wav",
        "n" * 251 + ".wav",
        os.fsdecode(b"bad\xff.wav"),
    ]
    for seed, name in enumerate(names):
        drop(home, name, seed=seed, seconds=0.05)
    run_until_idle(home)
    assert files_below(home.outbox) == sorted(names)
    assert files_below(home.processed) == sorted(names)
    assert files_below(home.inbox) == files_below(home.failed) == files_below(home.work) == []
    assert len(renders(home)) == 20
    assert is_done(home, 20)


def test_name_voice_and_settings_come_from_the_path_and_the_sidecar(home: Home) -> None:
    (home.inbox / "b.wav.toml").write_text('voice = "tenor"\ntranspose = 5\noutput_format = "flac"')
    drop(home, "TENOR/a.wav")
    drop(home, "b.wav", seed=1)
    drop(home, "c.wav", seed=2)
    run_until_idle(home)
    assert sorted(line.split(" ", 1)[1] for line in renders(home)) == [
        "a.wav tenor 0",
        "b.wav tenor 5",
        "c.wav alto 0",
    ]
    assert files_below(home.outbox) == ["TENOR/a.wav", "b.flac", "c.wav"]
    assert soundfile.info(home.outbox / "b.flac").format == "FLAC"
    assert "b.wav.toml" in files_below(home.processed)


def test_bad_inputs_fail_with_a_reason_and_block_nobody(home: Home) -> None:
    (home.inbox / "text.wav").write_text("this is a text named .wav " * 50)
    (home.inbox / "side.wav.toml").write_text("transpose = 1\nbanana = 2\n")
    (home.inbox / "notes.txt").write_text("not for us")
    os.mkfifo(home.inbox / "fifo.wav")
    (home.inbox / "link.wav").symlink_to("/etc/hostname")
    drop(home, "side.wav")
    drop(home, "altoo/unknown.wav", seed=1)
    drop(home, "good.wav", seed=2)
    run_until_idle(home)
    assert files_below(home.outbox) == ["good.wav"]
    found = {j.source_name: (j.state, j.error.code if j.error else "", j.attempt) for j in jobs_of(home)}
    assert found == {
        "text.wav": (JobState.FAILED, "E_INPUT_NOT_AUDIO", 1),
        "side.wav": (JobState.FAILED, "E_CONFIG_SIDECAR", 0),
        "altoo/unknown.wav": (JobState.FAILED, "E_VOICE_UNKNOWN", 0),
        "good.wav": (JobState.DONE, "", 1),
    }
    assert files_below(home.failed) == [
        "altoo/unknown.wav",
        "altoo/unknown.wav.error.txt",
        "side.wav",
        "side.wav.error.txt",
        "side.wav.toml",
        "text.wav",
        "text.wav.error.txt",
    ]
    assert "side.wav.toml:2: unknown setting 'banana'" in (home.failed / "side.wav.error.txt").read_text()
    assert "did you mean alto?" in (home.failed / "altoo" / "unknown.wav.error.txt").read_text()
    queue = Queue.open_readonly(home.database)
    assert {a.path: a.reason for a in queue.arrivals()} == {
        b"notes.txt": "ignored: extension",
        b"fifo.wav": "ignored: not a regular file",
        b"link.wav": "ignored: symbolic link",
    }
    queue.close()


def test_same_name_with_other_content_and_a_file_of_the_user_are_kept_apart(home: Home) -> None:
    (home.outbox / "a.wav").write_bytes(b"mine")
    drop(home, "a.wav", seed=1)
    run_until_idle(home)
    drop(home, "a.wav", seed=2)
    drop(home, "A.WAV", seed=3)
    run_until_idle(home)
    assert (home.outbox / "a.wav").read_bytes() == b"mine"
    assert len(files_below(home.outbox)) == 4
    assert is_done(home, 3)


def test_second_drop_of_a_file_at_work_is_a_duplicate(home: Home) -> None:
    with running(home) as daemon:
        drop(home, "slow-3-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the job is at work")
        drop(home, "slow-3-a.wav")
        eventually(lambda: len(jobs_of(home)) == 2, "the second drop is seen")
        assert jobs_of(home)[1].state is JobState.DUPLICATE
        eventually(lambda: jobs_of(home)[0].state is JobState.DONE, "the first is done")
        assert daemon.process.poll() is None
    assert files_below(home.outbox) == ["slow-3-a.wav"]
    assert len(renders(home)) == 1


def test_slow_copy_in_chunks_is_taken_once_and_whole(home: Home, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", seconds=2)
    data = (tmp_path / "a.wav").read_bytes()
    with running(home), (home.inbox / "a.wav").open("wb") as file:
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        for part in range(4):
            file.write(data[part * len(data) // 4 : (part + 1) * len(data) // 4])
            file.flush()
            time.sleep(0.4)  # longer than the settle time: only the container tells
            assert part == 3 or not jobs_of(home)
        eventually(lambda: is_done(home), "it is done")
    assert soundfile.info(home.outbox / "a.wav").frames == 32_000


def test_inbox_deleted_and_recreated_works_again(home: Home) -> None:
    with running(home):
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        home.inbox.rmdir()
        eventually(lambda: heartbeat(home)["last_error"] is not None, "the loss is reported")
        home.inbox.mkdir()
        drop(home, "a.wav")
        eventually(lambda: is_done(home), "it is done")


def test_second_daemon_is_refused_and_names_the_first(home: Home) -> None:
    with running(home) as first:
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        with running(home) as second:
            assert second.wait() != 0
        assert f"process {first.process.pid} since" in (home.state / "test.log").read_text()
        assert first.process.poll() is None


def test_heartbeat_file_tells_who_works_on_what(home: Home) -> None:
    with running(home) as daemon:
        drop(home, "slow-2-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the job is at work")
        eventually(lambda: heartbeat(home)["worker"]["state"] == "busy", "it says so")  # type: ignore[index]
        record = heartbeat(home)
        assert record["version"] == 1
        assert record["pid"] == daemon.process.pid
        assert record["last_error"] is None
        worker, watcher = record["worker"], record["watcher"]
        assert isinstance(worker, dict)
        assert isinstance(watcher, dict)
        assert worker["job_id"] == 1
        assert worker["pid"] == int(renders(home)[0].split()[0])
        assert worker["backend"] == "fake"
        assert worker["rss"] > 1_000_000
        assert watcher["mode"] == "events and rescan"
        assert watcher["error"] is None
        before = record["updated_at"]
        eventually(lambda: heartbeat(home)["updated_at"] != before, "it beats")


def test_sigterm_finishes_the_segment_and_gives_the_job_back(home: Home) -> None:
    with running(home) as daemon:
        drop(home, "slow-20-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the job is at work")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
    (job,) = jobs_of(home)
    assert (job.state, job.attempt, job.claim_no) == (JobState.QUEUED, 0, 1)
    assert files_below(home.outbox) == []
    assert not (home.state / "daemon.json").exists()
    assert (home.work / job.public_id / "slow-20-a.wav").is_file()


def test_second_signal_stops_at_once_and_clean(home: Home) -> None:
    with running(home) as daemon:
        drop(home, "hang-a.wav")
        eventually(lambda: (home.state / "fake-hang-a.wav").exists(), "the worker hangs")
        daemon.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.wait(2.5) == 0  # sooner than the three seconds a segment is given here
    (job,) = jobs_of(home)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert files_below(home.outbox) == []


def test_ctrl_c_in_a_terminal_gives_the_job_back_and_says_so(home: Home) -> None:
    """Through a real terminal: the signal goes to the whole group, and the worker must not die of it."""
    ours, theirs = pty.openpty()
    code = "import os, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    command = (
        f"{code}; os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'tests.daemon_harness', {str(home.root)!r}])"
    )
    daemon = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = bytearray()
    listening = threading.Thread(target=_listen, args=(ours, said))
    listening.start()
    try:
        drop(home, "slow-20-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the job is at work")
        os.write(ours, b"\x03")
        assert daemon.wait(20 * PATIENCE) == 0
    finally:
        daemon.kill()
        daemon.wait()
        listening.join()
        os.close(ours)
    assert b"stopping after the present segment; signal again to stop at once" in said
    (job,) = jobs_of(home)
    assert (job.state, job.attempt, job.claim_no) == (JobState.QUEUED, 0, 1)


def has_hooks(home: Home) -> bool:
    with contextlib.closing(sqlite3.connect(home.database)) as connection:
        return connection.execute("SELECT 1 FROM meta WHERE key = 'hooks'").fetchone() is not None


def _listen(terminal: int, said: bytearray) -> None:
    with contextlib.suppress(OSError):  # a terminal that nobody holds any more answers with an error
        while True:
            said.extend(os.read(terminal, 4096))


def test_cancelled_jobs_stop_and_their_sources_are_found(home: Home) -> None:
    with running(home):
        drop(home, "slow-20-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the first is at work")
        drop(home, "slow-20-b.wav", seed=1)
        eventually(lambda: len(jobs_of(home)) == 2 and jobs_of(home)[1].state is JobState.QUEUED, "the second waits")
        queue = Queue.open(home.database, owner=False)
        queue.cancel(1)
        queue.cancel(2)
        queue.close()
        eventually(lambda: len(files_below(home.failed)) == 4, "both sources are in failed/")
    assert [j.state for j in jobs_of(home)] == [JobState.CANCELLED] * 2
    assert files_below(home.outbox) == []
    assert len(renders(home)) == 1


def test_retried_job_uses_the_settings_file_that_was_put_right(home: Home) -> None:
    (home.inbox / "a.wav.toml").write_text("transpose = 99")
    drop(home, "a.wav")
    run_until_idle(home)
    (home.failed / "a.wav.toml").write_text("transpose = 9")
    queue = Queue.open(home.database, owner=False)
    queue.retry(1)
    queue.close()
    run_until_idle(home)
    assert is_done(home)
    assert renders(home)[0].endswith("a.wav alto 9")
    assert files_below(home.failed) == []
    assert files_below(home.processed) == ["a.wav", "a.wav.toml"]


def test_half_a_file_that_is_retried_fails_again(home: Home) -> None:
    drop(home, "a.wav")
    whole = (home.inbox / "a.wav").read_bytes()
    (home.inbox / "a.wav").write_bytes(whole[: len(whole) // 2])
    run_until_idle(home)
    queue = Queue.open(home.database, owner=False)
    queue.retry(1)
    queue.close()
    run_until_idle(home)
    [job] = jobs_of(home)
    assert (job.state, job.claim_no, job.error and job.error.code) == (JobState.FAILED, 1, "E_INPUT_TRUNCATED")
    assert files_below(home.failed) == ["a.wav", "a.wav.error.txt"]
    assert files_below(home.outbox) == []


def test_hangup_reads_the_settings_again_and_bad_ones_change_nothing(home: Home) -> None:
    with running(home) as daemon:
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        home.config_file.write_text('default_voice = "bass"\nbanana = 1\n')
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: "banana" in (home.state / "test.log").read_text(), "the bad key is reported")
        drop(home, "a.wav")
        eventually(lambda: is_done(home, 1), "the old settings hold")
        home.config_file.write_text('default_voice = "tenor"\n[watch]\nsettle_seconds = 0.1\nrescan_seconds = 0.3\n')
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: "settings read again" in (home.state / "test.log").read_text(), "they are read")
        drop(home, "b.wav", seed=1)
        eventually(lambda: is_done(home, 2), "the new settings hold")
    assert [line.split()[2] for line in renders(home)] == ["alto", "tenor"]


def test_hangup_opens_a_log_anew_that_was_moved_away(home: Home) -> None:
    with running(home) as daemon:
        log = home.logs / "rvc-batch.log"
        eventually(lambda: log.is_file() and "serving" in log.read_text(), "it runs")
        log.rename(home.logs / "moved.log")
        home.config_file.write_text('[log]\nformat = "json"\n')
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: log.is_file() and "settings read again" in log.read_text(), "there is a new one")
        assert json.loads(log.read_text().splitlines()[-1])["level"] == "info"


def test_hooks_are_told_and_one_that_is_dead_delays_nobody(home: Home) -> None:
    told = home.root / "told"
    home.config_file.write_text(
        'default_voice = "alto"\n[watch]\nsettle_seconds = 0.1\nrescan_seconds = 0.3\n'
        f"[[hooks]]\nname = 'file'\ncommand = ['/bin/sh', '-c', 'cat >> {told}; echo >> {told}']\n"
        "[[hooks]]\nname = 'dead'\nurl = 'http://127.0.0.1:9/'\n"
    )
    with running(home) as daemon:
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        daemon.process.send_signal(signal.SIGHUP)  # the harness starts with settings of its own
        eventually(lambda: "settings read again" in (home.state / "test.log").read_text(), "they are read")
        eventually(lambda: has_hooks(home), "hooks begin with what happens after they were first seen")
        drop(home, "a.wav")
        (home.inbox / "bad.wav").write_bytes(b"not audio" * 100)
        eventually(lambda: {job.state for job in jobs_of(home)} == {JobState.DONE, JobState.FAILED}, "both end")
        eventually(lambda: told.exists() and '"idle"' in told.read_text(), "the hook is told")
        eventually(lambda: "hook dead: http://127.0.0.1:9 did not take it" in (home.state / "test.log").read_text(), "")
    assert "job 1: publish" in (home.state / "test.log").read_text(), "publishing is a stage of its own"
    bodies = [json.loads(line) for line in told.read_text().splitlines()]
    assert sum(body["count"] for body in bodies if body["event"] == "done") == 1
    assert sum(body["count"] for body in bodies if body["event"] == "failed") == 1


def test_deleted_database_is_reported_and_costs_no_file(home: Home) -> None:
    with running(home) as daemon:
        eventually(lambda: (home.state / "daemon.json").exists(), "it runs")
        for file in home.state.glob("jobs.sqlite3*"):
            file.unlink()
        eventually(lambda: "was deleted or replaced" in str(heartbeat(home)["last_error"]), "the loss is reported")
        drop(home, "a.wav")
        eventually(lambda: files_below(home.work) != [], "the daemon took the file")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
    run_until_idle(home)
    assert files_below(home.outbox) == ["a.wav"]
    assert is_done(home)


def test_daemon_loads_no_framework() -> None:
    code = (
        "import sys; import rvc_batch.jobs.daemon, rvc_batch.cli.run;"
        "found = sorted({m.split('.')[0] for m in sys.modules} & {'mlx', 'torch', 'faiss', 'soundfile', 'scipy'});"
        "sys.exit(', '.join(found) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")

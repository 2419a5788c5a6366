"""The commands that read and steer the queue, through the command line itself."""

import dataclasses
import hashlib
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rvc_batch.engine.converter import Analysis
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import PitchTrack
from rvc_batch.errors import (
    DatabaseUnusable,
    ExtraMissing,
    FolderGone,
    InputUnreadable,
    JobNotFound,
    JobStateConflict,
    RetryClass,
    RvcBatchError,
    SettingsInvalid,
    SourceGone,
    VoiceUnknown,
)
from rvc_batch.home import Home
from rvc_batch.jobs import add as add_module
from rvc_batch.jobs.models import Job, JobState
from rvc_batch.jobs.queue import Queue
from tests.cli_harness import run
from tests.job_fakes import write_audio
from tests.queue_fakes import FakeClock, claimed, error, finished, new_job, queued


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def queue(home: Home) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=FakeClock())
    yield opened
    opened.close()


# --- reading ---


def test_jobs_lists_the_newest_first_with_the_code_of_a_failure(home: Home, queue: Queue) -> None:
    queued(queue, "a.wav")
    finished(queue, claimed(queue))
    queued(queue, "b.wav", voice="tom")
    queue.fail(claimed(queue), error("E_INPUT_EMPTY"), retry=RetryClass.NEVER)
    rows = [line.split() for line in run(home, "jobs").stdout.splitlines()[1:]]
    assert [row[:6] for row in rows] == [
        ["2", "failed", "tom", "tom/b.wav", "1:00", "–"],
        ["1", "done", "anna", "anna/a.wav", "1:00", "10.0x"],
    ]
    assert rows[0][-1] == "E_INPUT_EMPTY"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--state", "failed"], [2]),
        (["--voice", "anna"], [3, 1]),
        (["--error", "E_INPUT_EMPTY"], [2]),
        (["--limit", "1"], [3]),
        (["--state", "done"], []),
    ],
)
def test_jobs_filters(home: Home, queue: Queue, options: list[str], ids: list[int]) -> None:
    queued(queue, "a.wav", priority=-1)
    queued(queue, "b.wav", voice="tom")
    queue.fail(claimed(queue), error("E_INPUT_EMPTY"), retry=RetryClass.NEVER)
    queued(queue, "c.wav")
    record = json.loads(run(home, "jobs", *options, "--json").stdout)
    assert (record["version"], [job["id"] for job in record["jobs"]]) == (1, ids)


def test_an_unknown_state_is_refused_with_those_there_are(home: Home, queue: Queue) -> None:
    with pytest.raises(SettingsInvalid, match="'lost', expected one of ingesting, queued"):
        run(home, "jobs", "--state", "lost")


def test_an_empty_list_says_so(home: Home, queue: Queue) -> None:
    assert run(home, "jobs").stdout == "no jobs\n"


def test_job_shows_attempts_timings_journal_and_traceback(home: Home, queue: Queue) -> None:
    queued(queue)
    queue.fail(claimed(queue), error(), retry=RetryClass.LATER, stage_seconds={"decode": 0.25, "pitch": 1.5})
    shown = run(home, "job", "1").stdout
    for part in (
        "#1 anna/take.wav → anna   queued",
        "attempt 1   retry",
        "decode 0.25 s   pitch 1.50 s",
        "E_INTERNAL in pitch: it broke",
        "      Traceback …",
        "new → ingesting",
        "running → queued",
        '"index_rate": 0.75',
    ):
        assert part in shown


def test_job_as_json_holds_everything(home: Home, queue: Queue) -> None:
    queued(queue)
    finished(queue, claimed(queue))
    record = json.loads(run(home, "job", "1", "--json").stdout)
    assert record["version"] == 1
    assert record["job"]["state"] == "done"
    assert record["attempts"][0]["stage_seconds"] == {"decode": 0.5, "features": 2.0, "synth": 3.0}
    assert [event["to_state"] for event in record["events"]] == ["ingesting", "queued", "running", "done"]


def test_file_names_keep_their_bytes_in_json(home: Home, queue: Queue) -> None:
    new = queued(queue)
    queue._db.write(lambda c: c.exec_driver_sql("UPDATE jobs SET source_rel = X'62ff2e776176'"))
    record = json.loads(run(home, "job", str(new.id), "--json").stdout)
    assert record["job"]["source_rel"].encode("utf-8", "surrogateescape") == b"b\xff.wav"


def test_names_cannot_drive_the_terminal(home: Home, queue: Queue) -> None:
    queued(queue, "\x1b[2J\u202eevil\nrow.wav", voice="v\x07")
    for command in (["jobs"], ["job", "1"], ["cancel", "1"]):
        shown = run(home, *command).stdout
        assert all(c.isprintable() or c == "\n" for c in shown), command
        assert "\\x1b[2J\\u202eevil\\nrow.wav" in shown


def test_an_unknown_job_is_an_error(home: Home, queue: Queue) -> None:
    with pytest.raises(JobNotFound):
        run(home, "job", "9")


@pytest.mark.parametrize(
    "command",
    [
        ["jobs"],
        ["job", "1"],
        ["retry", "1"],
        ["retry", "--all-failed"],
        ["cancel", "1"],
        ["pause"],
        ["resume"],
        ["drain"],
        ["why", "inbox/a.wav"],
    ],
)
def test_without_a_database_nothing_is_created(home: Home, command: list[str]) -> None:
    with pytest.raises(DatabaseUnusable, match="rvc-batch run"):
        run(home, *command)
    assert not home.database.exists()


# --- steering ---


def test_cancel_and_retry_change_all_jobs_named(home: Home, queue: Queue) -> None:
    queued(queue, "a.wav")
    queued(queue, "b.wav")
    assert run(home, "cancel", "1", "2").stdout == "#1 anna/a.wav: cancelled\n#2 anna/b.wav: cancelled\n"
    assert queue.counts()[JobState.CANCELLED] == 2
    assert run(home, "retry", "1", "2").stdout == "#1 anna/a.wav: queued again\n#2 anna/b.wav: queued again\n"
    assert queue.counts()[JobState.QUEUED] == 2


def test_cancelling_a_running_job_says_when_it_takes_effect(home: Home, queue: Queue) -> None:
    queued(queue)
    claimed(queue)
    assert run(home, "cancel", "1").stdout == "#1 anna/take.wav: to be cancelled at its next segment\n"


def test_one_job_that_cannot_be_changed_does_not_stop_the_others(home: Home, queue: Queue) -> None:
    queued(queue)
    result = run(home, "cancel", "7", "1", code=1)
    assert "error E_JOB_NOT_FOUND: there is no job 7" in result.stderr
    assert queue.get(1).state is JobState.CANCELLED
    record = json.loads(run(home, "retry", "1", "7", "--json", code=1).stdout)
    assert [job["id"] for job in record["jobs"]] == [1]
    assert [e["code"] for e in record["errors"]] == ["E_JOB_NOT_FOUND"]


def test_pause_and_resume_are_seen_by_the_daemon(home: Home, queue: Queue) -> None:
    run(home, "pause", "moving the box")
    assert queue.paused().reason == "moving the box"
    assert json.loads(run(home, "resume", "--json").stdout) == {"version": 1, "paused": False}
    assert queue.paused().paused is False


def failed_job(queue: Queue, name: str, code: str) -> None:
    queued(queue, name)
    queue.fail(claimed(queue), error(code), retry=RetryClass.NEVER)


def test_retry_takes_all_failed_jobs_or_those_of_one_code(home: Home, queue: Queue) -> None:
    failed_job(queue, "a.wav", "E_VOICE_UNKNOWN")
    failed_job(queue, "b.wav", "E_INPUT_EMPTY")
    failed_job(queue, "c.wav", "E_VOICE_UNKNOWN")
    queue.cancel(queued(queue, "d.wav").id)
    assert [line[:2] for line in run(home, "retry", "--error", "E_VOICE_UNKNOWN").stdout.splitlines()] == ["#1", "#3"]
    assert queue.get(2).state is JobState.FAILED
    record = json.loads(run(home, "retry", "--all-failed", "--json").stdout)
    assert [job["id"] for job in record["jobs"]] == [2]
    assert queue.get(4).state is JobState.CANCELLED, "nobody asked for it"
    assert [attempt.outcome for attempt in queue.attempts(1)] == ["failed"], "history is kept"
    assert run(home, "retry", "--all-failed").stdout == "no failed job\n"


@pytest.mark.parametrize(
    "arguments", [[], ["1", "--all-failed"], ["1", "--error", "E_X"], ["--error", "E", "--all-failed"]]
)
def test_retry_of_nothing_or_of_two_things_is_refused(home: Home, queue: Queue, arguments: list[str]) -> None:
    with pytest.raises(SettingsInvalid, match="exactly one of them"):
        run(home, "retry", *arguments)


def test_drain_survives_a_restart_and_ends_with_resume(home: Home, queue: Queue) -> None:
    queued(queue)
    run(home, "pause")
    assert json.loads(run(home, "drain", "--json").stdout) == {"version": 1, "draining": True, "unfinished": 1}
    run(home, "drain")
    reopened = Queue.open(home.database, clock=FakeClock())
    assert reopened.is_draining()
    assert not reopened.paused().paused, "what is queued is to be finished"
    claimed(reopened)
    run(home, "resume")
    assert not reopened.is_draining()
    reopened.close()


def test_drain_leaves_the_pause_of_a_sick_machine_alone(home: Home, queue: Queue) -> None:
    queued(queue)
    queue.fail(claimed(queue), error("E_DISK_FULL"), retry=RetryClass.PAUSE)
    run(home, "drain")
    assert queue.paused().code == "E_DISK_FULL"


# --- add ---


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "song.wav"
    path.parent.mkdir()
    path.write_bytes(b"RIFF" + bytes(range(256)) * 40)
    return path


@pytest.fixture
def anna(home: Home) -> None:
    (home.voices / "anna.pth").write_bytes(b"x")


def inbox(home: Home) -> dict[str, bytes]:
    return {str(p.relative_to(home.inbox)): p.read_bytes() for p in home.inbox.rglob("*") if p.is_file()}


def test_add_copies_the_file_into_the_inbox_of_its_voice(home: Home, song: Path, anna: None) -> None:
    assert run(home, "add", str(song), "--voice", "anna").stdout == f"added {home.inbox / 'anna' / 'song.wav'}\n"
    assert inbox(home) == {"anna/song.wav": song.read_bytes()}
    assert not home.database.exists(), "it works with the daemon down"


def test_add_without_a_voice_leaves_the_choice_to_the_configuration(home: Home, song: Path) -> None:
    added = json.loads(run(home, "add", str(song), "--json").stdout)["added"]
    assert added == [str(home.inbox / "song.wav")]


def test_add_writes_given_settings_beside_the_file(home: Home, song: Path, anna: None) -> None:
    run(home, "add", str(song), "--voice", "anna", "--transpose", "-12", "--seed", "7", "--format", "flac")
    written = tomllib.loads(inbox(home)["anna/song.wav.toml"].decode())
    assert written == {"transpose": -12.0, "seed": 7, "output_format": "flac"}
    assert ConversionSettings().with_changes(**written).transpose == -12.0


def test_add_never_replaces_a_file_that_waits(home: Home, song: Path) -> None:
    (home.inbox / "song.wav").write_bytes(b"waits")
    (home.inbox / "song (2).wav.toml").write_bytes(b"waits too")
    run(home, "add", str(song))
    assert inbox(home)["song.wav"] == b"waits"
    assert inbox(home)["song (3).wav"] == song.read_bytes()


def test_the_watcher_never_sees_half_a_file_or_one_without_its_settings(
    home: Home, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    def visible() -> set[str]:
        return {name for name in inbox(home) if not name.startswith(".")}

    for name in ("_copy", "_rename_exclusively"):
        step = getattr(add_module, name)

        def watched(source: Path, target: Path, step: object = step) -> None:
            seen.append(visible())
            step(source, target)  # type: ignore[operator]
            seen.append(visible())

        monkeypatch.setattr(add_module, name, watched)
    run(home, "add", str(song), "--seed", "1")
    both = {"song.wav", "song.wav.toml"}
    assert seen == [set(), set(), {"song.wav.toml"}, both]
    assert set(inbox(home)) == both, "no hidden file is left"


def test_a_failed_copy_leaves_nothing(home: Home, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(RvcBatchError, match="No space left on device"):
        run(home, "add", str(song), "--seed", "1")
    assert inbox(home) == {}


def test_add_puts_nothing_into_the_empty_place_of_a_volume(home: Home, song: Path) -> None:
    (home.state / "folders.json").write_text('{"inbox": true}')
    with pytest.raises(FolderGone, match="is not mounted"):
        run(home, "add", str(song))
    assert list(home.inbox.iterdir()) == []


def test_add_refuses_what_cannot_work_before_copying(home: Home, song: Path) -> None:
    with pytest.raises(VoiceUnknown, match="no voice 'nobody'"):
        run(home, "add", str(song), "--voice", "nobody")
    with pytest.raises(SettingsInvalid, match=r"protect is 0\.9"):
        run(home, "add", str(song), "--protect", "0.9")
    with pytest.raises(InputUnreadable, match="is not there"):
        run(home, "add", str(song.with_name("nothing.wav")))
    with pytest.raises(InputUnreadable, match="is not a file"):
        run(home, "add", str(song.parent))
    home.inbox.rmdir()
    with pytest.raises(FolderGone, match="is missing"):
        run(home, "add", str(song))


@pytest.mark.parametrize(
    "command",
    ["jobs", "job", "retry", "cancel", "pause", "resume", "drain", "add", "status", "why", "backup", "doctor"],
)
def test_every_command_has_help_and_json(home: Home, command: str) -> None:
    shown = run(home, command, "--help").stdout
    assert "--json" in shown
    assert "Usage" in shown


# --- the picture of a job ---


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand in for the pitch network; return what it was asked about."""
    asked: list[Path] = []

    def analyse(sources: list[Path], **_: object) -> list[Analysis]:
        asked.extend(sources)
        return [Analysis(PitchTrack(np.full(10, 220.0, np.float32)), (0.05,)) for _ in sources]

    monkeypatch.setattr("rvc_batch.api.analyse", analyse)
    return asked


def job_with_audio(home: Home, queue: Queue) -> tuple[Job, Path]:
    """Return a job whose source was sorted into processed/ under a numbered name, and its result."""
    for name, seed in (("take.wav", 1), ("take (2).wav", 2)):
        (home.processed / "anna").mkdir(exist_ok=True)
        write_audio(home.processed / "anna" / name, seed=seed)
    own = (home.processed / "anna" / "take (2).wav").read_bytes()
    new = dataclasses.replace(new_job(), content_sha256=hashlib.sha256(own).hexdigest())
    queue.enqueue(queue.submit(new).id)
    job = finished(queue, claimed(queue))
    result = home.outbox / "anna" / "take.wav"
    result.parent.mkdir()
    write_audio(result, seed=3)
    return job, result


def test_picture_of_a_job_is_drawn_from_its_own_source_and_result(
    home: Home, queue: Queue, analysed: list[Path], tmp_path: Path
) -> None:
    job, result = job_with_audio(home, queue)
    picture = tmp_path / "p.png"
    told = json.loads(run(home, "job", str(job.id), "--plot", str(picture), "--json").stdout)
    assert told["plot"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert analysed == [home.processed / "anna" / "take (2).wav", result]


def test_picture_needs_both_ends_of_a_job_that_is_done(
    home: Home, queue: Queue, analysed: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, result = job_with_audio(home, queue)
    waiting = queued(queue, "waits.wav")
    picture = str(tmp_path / "p.png")
    with pytest.raises(JobStateConflict, match="is queued; a picture needs its output"):
        run(home, "job", str(waiting.id), "--plot", picture)
    result.unlink()
    with pytest.raises(SourceGone, match="the output of job 1 is not there any more"):
        run(home, "job", str(job.id), "--plot", picture)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExtraMissing, match="pip install matplotlib"):
        run(home, "job", str(job.id), "--plot", picture)
    assert analysed == []

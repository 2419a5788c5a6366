"""`why`: every file of the inbox that is no job has a reason, and every other one its job."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvc_batch.errors import RetryClass, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.explain import Explanation, explain
from rvc_batch.jobs.models import Arrival, ArrivalVerdict
from rvc_batch.jobs.queue import Queue
from tests.cli_harness import run
from tests.queue_fakes import EPOCH, FakeClock, claimed, error, finished, new_job, queued


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


@pytest.fixture
def queue(home: Home) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=FakeClock())
    yield opened
    opened.close()


def show(queue: Queue, path: bytes, verdict: ArrivalVerdict, reason: str) -> None:
    queue.replace_arrivals(
        [Arrival(path=path, first_seen=EPOCH, last_change=EPOCH, size=7, verdict=verdict, reason=reason)]
    )


def ask(home: Home, queue: Queue, path: str | Path) -> Explanation:
    return explain(home, queue, Path(path))


@pytest.mark.parametrize("verdict", list(ArrivalVerdict))
def test_what_the_watcher_wrote_down_is_the_answer(home: Home, queue: Queue, verdict: ArrivalVerdict) -> None:
    (home.inbox / "a.wav").touch()
    show(queue, b"a.wav", verdict, "for a reason")
    found = ask(home, queue, home.inbox / "a.wav")
    assert (found.rel, found.verdict, found.reason) == (b"a.wav", verdict, "for a reason")
    assert found.advice


def test_a_file_in_a_folder_that_is_not_entered_has_the_folders_reason(home: Home, queue: Queue) -> None:
    (home.inbox / "deep").mkdir()
    (home.inbox / "deep" / "a.wav").touch()
    show(queue, b"deep", ArrivalVerdict.IGNORED, "ignored: folder too deep")
    assert ask(home, queue, home.inbox / "deep" / "a.wav").reason == "ignored: folder too deep"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".a.wav", ".a.wav: hidden or temporary name"),
        ("._a.wav", "._a.wav: hidden or temporary name"),
        (".incoming/a.wav", ".incoming: hidden or temporary name"),
        ("a.wav.toml", "settings file"),
    ],
)
def test_what_the_watcher_passes_over_in_silence_has_a_reason_too(
    home: Home, queue: Queue, name: str, reason: str
) -> None:
    path = home.inbox / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    found = ask(home, queue, path)
    assert (found.verdict, found.reason) == ("ignored", reason)


def test_a_file_that_just_came_was_not_looked_at(home: Home, queue: Queue) -> None:
    (home.inbox / "a.wav").touch()
    assert ask(home, queue, home.inbox / "a.wav").verdict == "unseen"


def test_a_file_that_is_gone_was_taken_by_its_latest_job(home: Home, queue: Queue) -> None:
    queued(queue, "a.wav")
    finished(queue, claimed(queue))
    queued(queue, "a.wav")
    queue.fail(claimed(queue), error("E_INPUT_TRUNCATED", "cut short"), retry=RetryClass.NEVER)
    found = ask(home, queue, home.inbox / "anna" / "a.wav")
    assert found.job is not None
    assert (found.job.id, found.verdict) == (2, "failed")
    assert found.reason == "it is job 2, which failed: E_INPUT_TRUNCATED cut short"
    assert found.advice == "rvc-batch retry 2"
    assert ask(home, queue, home.failed / "anna" / "a.wav") == found, "that is where its source lies"


def test_done_and_duplicate_say_where_the_result_is(home: Home, queue: Queue) -> None:
    queued(queue, "a.wav")
    queue.submit(new_job("a.wav"))
    assert ask(home, queue, home.inbox / "anna" / "a.wav").reason == "it is job 2, the same as job 1"
    finished(queue, claimed(queue))
    queued(queue, "b.wav")
    finished(queue, claimed(queue))
    assert ask(home, queue, home.inbox / "anna" / "b.wav").reason == "it is job 3, done: anna/b.wav in the outbox"


def test_a_file_nobody_ever_saw_is_gone(home: Home, queue: Queue) -> None:
    assert ask(home, queue, home.inbox / "nothing.wav").verdict == "gone"


def test_a_path_can_be_given_in_every_usual_way(
    home: Home, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.inbox / "cd").mkdir()
    (home.inbox / "cd" / "b.wav").touch()
    (tmp_path / "door").symlink_to(home.root)
    (home.inbox / "a.wav").symlink_to("/nowhere")
    ways = ["a.wav", "inbox/a.wav", str(home.inbox / "a.wav"), str(home.inbox / "cd" / ".." / "a.wav")]
    assert {ask(home, queue, way).rel for way in [*ways, tmp_path / "door" / "inbox" / "a.wav"]} == {b"a.wav"}
    monkeypatch.chdir(home.inbox / "cd")
    assert {ask(home, queue, way).rel for way in ("b.wav", "inbox/cd/b.wav")} == {b"cd/b.wav"}


@pytest.mark.parametrize("path", ["/etc/hostname", "../home/inbox", "../elsewhere.wav"])
def test_a_path_elsewhere_is_refused(home: Home, queue: Queue, path: str) -> None:
    with pytest.raises(SettingsInvalid, match="is not below"):
        ask(home, queue, path)


def test_the_command_prints_one_sentence_and_a_remedy(home: Home, queue: Queue) -> None:
    show(queue, b"a\x1b.wav", ArrivalVerdict.INCOMPLETE, "promises 10, holds 5")
    shown = run(home, "why", os.fsdecode(b"a\x1b.wav")).stdout.splitlines()
    assert shown[0] == "a\\x1b.wav: incomplete, promises 10, holds 5"
    assert shown[-1].startswith("  → copy it again")
    record = json.loads(run(home, "why", "a\x1b.wav", "--json").stdout)
    assert (record["version"], record["why"]["arrival"]["size"]) == (1, 7)

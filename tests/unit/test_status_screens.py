"""`status` in every state, as docs/status.md shows it: each screen is made here, and compared or written (--record)."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from rvc_batch.cli.status_text import lines
from rvc_batch.errors import RetryClass
from rvc_batch.home import Home
from rvc_batch.jobs.models import Arrival, ArrivalVerdict
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.starts import MAX_STARTS, LastStart, Starts
from rvc_batch.jobs.status import ServiceFacts, Word, read_status
from tests.queue_fakes import EPOCH, LEASE_S, FakeClock, claimed, error, finished, queued
from tests.status_fakes import beat, dead_pid

PAGE = Path(__file__).parents[2] / "docs" / "status.md"
SERVICE = ServiceFacts(manager="systemd", is_system=True, file="/etc/systemd/system/rvc-batch.service", user="rvcbox")
HEAD = """\
# What `status` says

`rvc-batch status` answers in one word, then the reason, then the command that helps, then the facts, each with its age.
It works with the daemon down and the database missing, locked or from another version, and it never writes. `--json`
prints the same as one object with a `version`; `--watch` draws it again and again. Colour only in a terminal, and not
with `NO_COLOR`.

| word | meaning | exit code |
|---|---|---|
| OK | nothing to do, the inbox is watched | 0 |
| BUSY | at work, or about to be | 0 |
| PAUSED | jobs wait, and nothing is broken that they need | 1 |
| DEGRADED | something does not work | 1 |
| DOWN | nobody works | 2 |
| any | the jobs cannot be read | 3 |

Speed is seconds of audio per second of work. The time left is the audio that waits divided by the median speed of the
last twenty jobs of its voice; a range where those differ by more than a quarter; `—` while a voice has fewer than
three. A percentage reaches 100 only when the file is in the outbox.

The screens below are made by a test, `pytest tests/unit/test_status_screens.py --record`, and the test fails when they
are not what `status` prints.
"""


@dataclass
class Box:
    """A home, its queue and the time."""

    home: Home
    queue: Queue
    clock: FakeClock

    def work(self, name: str, *, voice: str = "anna", audio: float = 600.0, speed: float = 12.0) -> None:
        queued(self.queue, name, voice=voice, seconds_in=audio)
        self.clock.step(180)
        finished(self.queue, claimed(self.queue), seconds_in=audio, wall_seconds=audio / speed)

    def beat(self, **changes: object) -> None:
        worker = {
            "pid": 3177,
            "state": "idle",
            "device": "Apple M4 Pro",
            "backend": "mlx",
            "warm_voices": ["anna", "tom"],
            "rss": 4_000_000_000,
            "job_id": None,
            "updated_at": self.clock.now - 2,
            "restarts": 1,
            "last_restart_reason": "recycled after 1000 jobs",
            "started_at": self.clock.now - 3 * 3600,
            "replaced_at": self.clock.now - 3 * 3600,
            "memory": {"active": 3_100_000_000, "cache": 400_000_000, "cache_limit": 1_073_741_824},
        }
        usual = {
            "at": self.clock.now - 1,
            "started_at": self.clock.now - 6 * 86_400,
            "started_by": "systemd",
            "open_files": 31,
            "open_files_limit": 8192,
            "worker": worker | (changes.pop("worker", None) or {}),  # type: ignore[operator]
            "self_test": {
                "started_at": self.clock.now - 10_805,
                "ended_at": self.clock.now - 10_800,
                "checking": "",
                "findings": [{"check": "inbox/", "level": "ok", "what": "takes files", "remedy": ""}] * 12,
            },
        }
        beat(self.home, **(usual | changes))  # type: ignore[arg-type]


@contextmanager
def new_box(folder: Path) -> Iterator[Box]:
    home, clock = Home(folder), FakeClock()
    home.create()
    home.backups.mkdir()
    queue = Queue.open(home.database, clock=clock)
    try:
        yield Box(home, queue, clock)
    finally:
        queue.close()


@contextmanager
def ok(box: Box) -> Iterator[None]:
    for number in range(3):
        box.work(f"chapter_{number + 1:02}.wav")
    box.beat()
    yield


@contextmanager
def busy(box: Box) -> Iterator[None]:
    for number, speed in enumerate((11.9, 12.1, 11.8, 12.3)):
        box.work(f"chapter_{number + 1:02}.wav", speed=speed)
    for number, speed in enumerate((14.0, 8.0, 11.0)):
        box.work(f"song_{number + 1}.flac", voice="tom", audio=200, speed=speed)
    for name, code, message in (
        ("take7.wav", "E_INPUT_TRUNCATED", "the header promises 3:10, the file holds 1:02; copy it again"),
        ("choir.m4a", "E_FORMAT_UNSUPPORTED", "m4a cannot be decoded; export as WAV or FLAC"),
    ):
        queued(box.queue, name, seconds_in=None)
        box.queue.fail(claimed(box.queue), error(code, message, "decode"), retry=RetryClass.NEVER)
        box.clock.step(600)
    queued(box.queue, "podcast-ep12.wav", seconds_in=3731.0)
    job = claimed(box.queue)
    for number in range(5):
        queued(box.queue, f"intro_{number + 1}.flac", voice="tom" if number % 2 else "anna", seconds_in=1800.0)
    box.clock.step(190)
    box.queue.heartbeat(job, lease_seconds=LEASE_S, stage="synth", progress_done=2313.0, progress_total=3731.0)
    arrival = {"path": b"night.wav", "first_seen": box.clock.now - 500, "last_change": box.clock.now - 240, "size": 9}
    box.queue.replace_arrivals(
        [
            Arrival(**arrival, verdict=ArrivalVerdict.INCOMPLETE, reason="61 % of what its header promises"),  # type: ignore[arg-type]
            Arrival(**arrival | {"path": b"new.wav"}, verdict=ArrivalVerdict.SETTLING, reason="new"),  # type: ignore[arg-type]
        ]
    )
    box.beat(worker={"state": "busy", "job_id": job.id})
    yield


@contextmanager
def unmeasured(box: Box) -> Iterator[None]:
    box.work("first.wav")
    queued(box.queue, "second.wav")
    box.beat()
    yield


@contextmanager
def paused(box: Box) -> Iterator[None]:
    queued(box.queue)
    box.queue.pause("the neighbours record today")
    box.clock.step(720)
    box.beat()
    yield


@contextmanager
def paused_by_fault(box: Box) -> Iterator[None]:
    queued(box.queue)
    message = "/srv/rvc/outbox is not the volume it was (its marker is missing); mount it"
    box.queue.fail(claimed(box.queue), error("E_FOLDER_GONE", message, "publish"), retry=RetryClass.PAUSE)
    box.clock.step(20)
    box.beat()
    yield


@contextmanager
def drained(box: Box) -> Iterator[None]:
    box.work("last.wav")
    box.queue.drain()
    box.beat()
    yield


@contextmanager
def no_worker(box: Box) -> Iterator[None]:
    queued(box.queue)
    worker = {"pid": None, "state": "stopped", "warm_voices": [], "rss": None, "memory": None, "restarts": 4}
    why = "the worker cannot start: E_MODEL_MISSING: rmvpe.pt is not in models/; put it there"
    worker |= {"last_restart_reason": "the worker exited with status 3", "replaced_at": box.clock.now - 20}
    box.beat(worker=worker, last_error=why)
    yield


@contextmanager
def self_test(box: Box) -> Iterator[None]:
    fault = {
        "check": "outbox/",
        "level": "fault",
        "what": "/srv/rvc/outbox cannot take a file: Operation not permitted",
        "remedy": "System Settings → Privacy & Security → Full Disk Access: add /opt/rvc-batch/bin/python3",
    }
    fine = {"check": "inbox/", "level": "ok", "what": "takes files", "remedy": ""}
    times = {"started_at": box.clock.now - 65, "ended_at": box.clock.now - 60, "checking": ""}
    box.beat(self_test=times | {"findings": [fine, fault, *[fine] * 10]})
    yield


@contextmanager
def down(box: Box) -> Iterator[None]:
    queued(box.queue, "a.wav")
    claimed(box.queue)
    queued(box.queue, "b.wav")
    box.beat(pid=dead_pid())
    box.clock.step(240)
    yield


@contextmanager
def gave_up(box: Box) -> Iterator[None]:
    starts = Starts(box.home, clock=box.clock)
    why = "/srv/rvc/rvc-batch.toml:3: watch.depth: Input should be a valid integer (got 'deep')"
    starts._write(
        LastStart(starts=MAX_STARTS, started_at=EPOCH, pid=812, code="E_SETTINGS", message=why, has_given_up=True)
    )
    queued(box.queue)
    yield


@contextmanager
def locked(box: Box) -> Iterator[None]:
    box.queue.close()
    with closing(sqlite3.connect(box.home.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        (box.home.database.parent / "jobs.sqlite3-wal").touch()  # so that it is not taken for a file at rest
        box.beat()
        yield


@contextmanager
def missing(box: Box) -> Iterator[None]:
    box.queue.close()
    box.home.database.unlink()
    box.beat()
    yield


@contextmanager
def newer(box: Box) -> Iterator[None]:
    box.work("a.wav")
    box.queue.close()
    with closing(sqlite3.connect(box.home.database)) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '0999'")
        other.execute("UPDATE meta SET value = '7.1.0' WHERE key = 'version'")
    box.beat()
    yield


@contextmanager
def unreadable(box: Box) -> Iterator[None]:
    box.queue.close()
    with closing(sqlite3.connect(box.home.database)) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '0999'")
        other.execute("ALTER TABLE jobs RENAME COLUMN voice TO singer")
    box.beat()
    yield


SCENES = {
    "OK": (ok, Word.OK, 0),
    "BUSY": (busy, Word.BUSY, 0),
    "BUSY, with a voice whose speed is not known yet": (unmeasured, Word.BUSY, 0),
    "PAUSED by hand": (paused, Word.PAUSED, 1),
    "PAUSED by a fault of the machine": (paused_by_fault, Word.PAUSED, 1),
    "PAUSED because it is drained": (drained, Word.PAUSED, 1),
    "DEGRADED: the worker cannot start": (no_worker, Word.DEGRADED, 1),
    "DEGRADED: the service may not do what it must": (self_test, Word.DEGRADED, 1),
    "DOWN": (down, Word.DOWN, 2),
    "DOWN: given up after five failed starts": (gave_up, Word.DOWN, 2),
    "The database is locked": (locked, Word.DEGRADED, 3),
    "The database is missing": (missing, Word.DEGRADED, 3),
    "The database is newer, and can be read": (newer, Word.OK, 0),
    "The database is newer, and cannot be read": (unreadable, Word.DEGRADED, 3),
}


def test_page_shows_every_state_with_its_word_and_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Callable[[Path, str], None]
) -> None:
    monkeypatch.setattr("rvc_batch.jobs.status.shutil.disk_usage", lambda _: SimpleNamespace(free=412_000_000_000))
    page = HEAD
    for number, (title, (scene, word, code)) in enumerate(SCENES.items()):
        with new_box(tmp_path / str(number)) as box, scene(box):
            backup = box.home.backups / "jobs-20270115T080000Z.sqlite3"
            backup.touch()
            os.utime(backup, (box.clock.now - 2460, box.clock.now - 2460))
            found = read_status(box.home, service=SERVICE, clock=box.clock)
            assert (found.word, found.exit_code) == (word, code), title
            screen = calm("\n".join(lines(found)), box.home)
        page += f"\n## {title}\n\n```\n$ rvc-batch status\n{screen}\n```\n\nExit code {code}.\n"
    recorded(PAGE, page)


def calm(text: str, home: Home) -> str:
    """Replace what differs from run to run."""
    text = text.replace(str(home.root), "/srv/rvc")
    text = re.sub(r"\bpid (?!3177)\d+", "pid 812", text)
    text = re.sub(r"sqlite \d+\.\d+\.\d+", "sqlite 3.53.1", text)
    return re.sub(r"(jobs?)   [\d.]+ [kM]B   schema", r"\1   1.2 MB   schema", text)

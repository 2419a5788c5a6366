"""The self-test of the service: made inside it, repeated, never in the way, and told to whoever asks."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from rvc_batch.config import Settings
from rvc_batch.home import Home
from rvc_batch.jobs import selftest
from rvc_batch.jobs.daemon_facts import SELF_TEST_PATIENCE_S, read_daemon
from rvc_batch.jobs.doctor import examine
from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.machine_probe import MachineFacts
from rvc_batch.jobs.selftest import SelfTest, SelfTestRecord, self_test, why_not_durable
from rvc_batch.jobs.status import Word, read_status
from tests.daemon_harness import eventually
from tests.queue_fakes import EPOCH
from tests.status_fakes import beat

SOUND = MachineFacts(device="cpu", gflops=90.0, blas="system", blas_path="/usr/lib/blas", codecs=selftest.NEEDED_CODECS)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def found(home: Home, facts: MachineFacts = SOUND) -> dict[str, Finding]:
    return {finding.check: finding for finding in self_test(home, Settings(), probe=lambda _: facts)}


def test_every_part_is_checked_and_nothing_is_left_behind(home: Home) -> None:
    before = sorted(home.root.rglob("*"))
    checks = found(home)
    folders = {"inbox/", "outbox/", "processed/", "failed/", "work/", "logs/"}
    assert set(checks) == folders | {"free space", "device", "BLAS", "codecs", "open files", "SQLite"}
    assert all(checks[name].level is Level.OK for name in (*folders, "device", "BLAS", "codecs"))
    assert checks["BLAS"].what == "system /usr/lib/blas, 90 GFLOP/s in a matrix product"
    assert sorted(home.root.rglob("*")) == before


def test_macos_is_told_where_the_permission_is_given(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(selftest.durable, "sync_file", refuse)
    monkeypatch.setattr(selftest.sys, "platform", "darwin")
    fault = found(home)["inbox/"]
    assert fault.level is Level.FAULT
    assert "Operation not permitted" in fault.what
    assert fault.remedy.startswith("System Settings → Privacy & Security → Full Disk Access: add ")
    assert list(home.inbox.iterdir()) == []


def test_two_processes_that_check_one_folder_do_not_meet(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from rvc_batch.jobs.selftest import why_not_durable;"
        f"print([why_not_durable(Path({str(home.inbox)!r})) for _ in range(200)].count(None))"
    )
    others = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    assert all(why_not_durable(home.inbox) is None for _ in range(200))
    assert [int(other.communicate()[0]) for other in others] == [200, 200]


def test_it_runs_beside_the_daemon_and_again_when_asked(home: Home) -> None:
    gate, asked = threading.Event(), list[str]()

    def probe(backend: str, _starting: Callable[..., None]) -> MachineFacts:
        asked.append(backend)
        gate.wait(20)
        return SOUND

    test = SelfTest(home, Settings, probe=probe, clock=lambda: EPOCH)
    assert test.record is None
    test.start()
    eventually(lambda: test.record is not None and test.record.checking == "device", "the device is asked")
    assert test.record is not None
    assert test.record.ended_at is None
    assert [finding.check for finding in test.record.findings][:2] == ["inbox/", "outbox/"]
    gate.set()
    eventually(lambda: test.record is not None and test.record.ended_at == EPOCH, "it ends")
    assert len(test.record.findings) == 12
    test.repeat()
    eventually(lambda: len(asked) == 2, "it is made again")
    test.stop()


def test_stopping_ends_the_process_that_asks_the_device(home: Home) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def probe(_backend: str, starting: Callable[[subprocess.Popen[bytes]], None]) -> MachineFacts:
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        starting(children[0])
        children[0].wait()
        return SOUND

    test = SelfTest(home, Settings, probe=probe)
    test.start()
    eventually(lambda: bool(children), "a process is asked")
    eventually(lambda: test._process is not None, "it is known")
    test.stop()
    assert children[0].wait(20) == -9


def record(home: Home, **changes: object) -> None:
    values = asdict(SelfTestRecord(EPOCH - 65, EPOCH - 60, "", (Finding("inbox/", Level.OK, "takes files"),)))
    beat(home, self_test=json.loads(json.dumps(values | changes)))


def test_a_fault_makes_the_box_degraded_and_doctor_repeats_it(home: Home) -> None:
    fault = asdict(Finding("outbox/", Level.FAULT, "outbox cannot take a file: read-only", "mount it to write"))
    record(home, findings=[fault])
    status = read_status(home, clock=lambda: EPOCH)
    assert status.daemon.self_test is not None
    assert status.daemon.self_test.trouble == Finding(**fault | {"level": Level.FAULT})
    lines = {f.check: f for f in examine(home, probe=lambda _: SOUND, clock=lambda: EPOCH)}
    assert lines["in service"].what == "the daemon tested itself 60 s ago: 1 checks"
    assert lines["in service: outbox/"].remedy == "mount it to write"


def test_a_check_that_does_not_answer_is_a_fault(home: Home) -> None:
    record(home, started_at=EPOCH - SELF_TEST_PATIENCE_S + 1, ended_at=None, checking="inbox/")
    (home.state / "jobs.sqlite3").touch()
    assert "self-test" not in read_status(home, clock=lambda: EPOCH).reason
    daemon = read_daemon(home, EPOCH + 2)
    assert daemon.self_test is not None
    assert daemon.self_test.trouble is not None
    assert daemon.self_test.trouble.what == "the check of inbox/ has not answered for 3 min"


def test_without_a_self_test_doctor_says_so(home: Home) -> None:
    beat(home)
    lines = {f.check: f for f in examine(home, probe=lambda _: SOUND, clock=lambda: EPOCH)}
    assert lines["in service"].level is Level.WARNING


def test_status_of_a_fault_is_one_sentence_with_the_remedy(home: Home) -> None:
    from rvc_batch.jobs.queue import Queue

    Queue.open(home.database).close()
    record(home, findings=[asdict(Finding("device", Level.FAULT, "no Metal device", "restart the machine"))])
    status = read_status(home, clock=lambda: EPOCH)
    assert (status.word, status.reason) == (Word.DEGRADED, "self-test: no Metal device; restart the machine")


def test_files_of_checks_that_were_killed_are_removed_and_those_of_living_ones_kept(home: Home) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [home.inbox / f"{selftest.CHECK_NAME}{ended.pid}.{suffix}" for suffix in ("part", "tmp")]
    alive = home.inbox / f"{selftest.CHECK_NAME}1.part"
    for path in (*left, alive):
        path.touch()
    assert why_not_durable(home.inbox) is None
    assert [path for path in (*left, alive) if path.exists()] == [alive]

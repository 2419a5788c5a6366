"""`doctor`: a sound box passes, each broken one is named with a remedy, and nothing is changed by looking."""

from __future__ import annotations

import functools
import importlib
import json
import re
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rvc_batch.home import Home
from rvc_batch.jobs import doctor as doctor_module
from rvc_batch.jobs import machine_probe, selftest
from rvc_batch.jobs.doctor import examine
from rvc_batch.jobs.findings import Finding, Level
from rvc_batch.jobs.machine_probe import MachineFacts, probe_machine
from rvc_batch.jobs.queue import Queue
from rvc_batch.jobs.selftest import descriptors, sqlite
from rvc_batch.service import checks
from tests.cli_harness import run
from tests.job_fakes import files_below
from tests.queue_fakes import FakeClock, queued

ROOT = Path(__file__).parents[2]
SOUND = MachineFacts("Apple M4", 900.0, "platform", "", ("AIFF", "FLAC", "MP3", "OGG", "WAV"), "")
Usage = namedtuple("Usage", "free")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    for name in ("hubert_base.pt", "rmvpe.pt"):
        (made.models / name).write_bytes(b"x")
    (made.voices / "anna.pth").write_bytes(b"x")
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**12))
    return made


@pytest.fixture
def queue(home: Home) -> Iterator[Queue]:
    opened = Queue.open(home.database, clock=FakeClock())
    yield opened
    opened.close()


def look(home: Home, *, deep: bool = False, facts: MachineFacts = SOUND) -> dict[str, Finding]:
    found = list(examine(home, deep=deep, probe=lambda _: facts, sleep=lambda _: None))
    worst = {f.check: f for f in sorted(found, key=lambda f: f.level.severity)}
    assert all(f.remedy for f in found if f.level is not Level.OK), "everything that is wrong has a remedy"
    return worst


def wrong(home: Home, *, deep: bool = False, facts: MachineFacts = SOUND) -> dict[str, str]:
    """Return what is wrong, apart from what a test box cannot have."""
    found = look(home, deep=deep, facts=facts)
    return {
        f.check: f"{f.level}: {f.what}"
        for f in found.values()
        if f.level is not Level.OK and f.check not in ("SQLite", "daemon", "backup", "open files")
    }


def test_a_sound_box_passes_and_looking_changes_nothing(home: Home, queue: Queue) -> None:
    before = files_below(home.root)
    assert wrong(home, deep=True) == {}
    assert look(home, deep=True)["invariants"].what.startswith("I1 to I12 hold")
    assert files_below(home.root) == before
    assert [*home.inbox.iterdir(), *home.outbox.iterdir()] == []


def missing_folder(home: Home) -> None:
    home.outbox.rmdir()


def file_for_folder(home: Home) -> None:
    home.failed.rmdir()
    home.failed.touch()


def unmounted(home: Home) -> None:
    (home.state / "folders.json").write_text('{"inbox": true}')


def bad_settings(home: Home) -> None:
    home.config_file.write_text("worker = 5\n")


def no_network(home: Home) -> None:
    (home.models / "rmvpe.pt").unlink()


def no_voice(home: Home) -> None:
    (home.voices / "anna.pth").unlink()


def other_default(home: Home) -> None:
    home.config_file.write_text('default_voice = "tom"\n')


def no_database(home: Home) -> None:
    home.database.write_bytes(b"this is no database " * 500)


def silent_daemon(home: Home) -> None:
    (home.state / "daemon.json").write_text("{")


@pytest.mark.parametrize(
    ("break_it", "check", "what"),
    [
        (missing_folder, "outbox/", r"fault: .*outbox is missing"),
        (file_for_folder, "failed/", r"fault: .*failed is not a folder"),
        (unmounted, "inbox/", r"fault: the volume of .*inbox is not mounted"),
        (bad_settings, "settings", r"fault: .*rvc-batch\.toml:1: worker: "),
        (no_network, "pitch network", r"fault: missing in "),
        (no_voice, "voices", r"fault: no usable voice"),
        (other_default, "voices", r"warning: default_voice is 'tom', usable are anna"),
        (no_database, "database", r"fault: .*is not a job database"),
    ],
)
def test_each_broken_state_is_named(home: Home, break_it: Callable[[Home], None], check: str, what: str) -> None:
    break_it(home)
    found = wrong(home, deep=True)
    assert list(found) == [check]
    assert re.match(what, found[check])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (MachineFacts(codecs=SOUND.codecs, trouble="no Metal device"), {"device": "fault: no Metal device"}),
        (
            MachineFacts("cpu", 2.0, "reference", "", SOUND.codecs),
            {"BLAS": "warning: reference: about sixty times slower on a CPU, 2 GFLOP/s in a matrix product"},
        ),
        (
            MachineFacts("cpu", 2.0, "system", "", ("WAV",)),
            {"codecs": "fault: libsndfile cannot decode FLAC, AIFF, OGG, MP3"},
        ),
    ],
)
def test_each_fault_of_the_machine_is_named(home: Home, facts: MachineFacts, expected: dict[str, str]) -> None:
    assert wrong(home, facts=facts) == expected


@pytest.mark.parametrize(("free", "level"), [(10**9, Level.WARNING), (10**8, Level.FAULT)])
def test_little_space_is_named(home: Home, monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free))
    assert look(home)["free space"].level is level


@pytest.mark.parametrize("call", ["open", "sync_file", "rename", "sync_folder"])
def test_a_folder_that_fails_one_step_of_publishing_is_named(
    home: Home, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    place = selftest.durable if call.startswith("sync") else Path
    with monkeypatch.context() as patch:
        patch.setattr(place, call, fail)
        trouble = selftest.why_not_durable(home.outbox)
    assert trouble is not None
    assert trouble.strerror == "Read-only file system"
    assert list(home.outbox.glob("*.part")) == []


def test_old_sqlite_and_few_descriptors_are_warnings() -> None:
    assert [sqlite(v).level for v in ((3, 51, 2), (3, 51, 3), (4, 0, 0))] == [Level.WARNING, Level.OK, Level.OK]
    assert [descriptors(n).level for n in (256, 1024, -1)] == [Level.WARNING, Level.OK, Level.OK]


def test_a_silent_daemon_and_a_missing_backup_are_named(home: Home, queue: Queue) -> None:
    silent_daemon(home)
    found = look(home)
    assert "cannot be read" in found["daemon"].what
    assert (found["backup"].level, found["backup"].what) == (Level.WARNING, "none was made yet")


def test_deep_names_a_broken_invariant_and_a_damaged_page(home: Home, queue: Queue) -> None:
    queued(queue)
    assert wrong(home) == {}
    assert list(wrong(home, deep=True)) == ["I7"], "a queued job without a source"
    queue._db.write(lambda c: c.exec_driver_sql("DELETE FROM jobs"))
    assert wrong(home, deep=True) == {}
    queued(queue)
    queue._db.write(lambda c: c.exec_driver_sql("PRAGMA user_version = 1"))
    queue.close()
    data = bytearray(home.database.read_bytes())
    page = data.index(b"anna/take.wav") // 4096 * 4096
    data[page : page + 4096] = b"\xa5" * 4096
    home.database.write_bytes(bytes(data))
    assert "damaged" in wrong(home, deep=True)["database"]


# --- the process that asks the libraries ---


def test_the_probe_finds_device_blas_and_codecs_and_loads_nothing_here(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from rvc_batch.home import Home;"
        "from rvc_batch.jobs.doctor import examine;"
        f"found = {{f.check: f for f in examine(Home(Path({str(home.root)!r})), deep=True)}};"
        "print(found['device'].level, found['codecs'].level, found['BLAS'].level);"
        "print([m for m in ('mlx', 'torch', 'faiss', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["ok ok ok", "[]"]


@pytest.mark.parametrize(
    ("source", "trouble"),
    [
        ("import os; os.abort()", f"loading mlx was ended by {signal.SIGABRT.name}"),
        ("raise SystemExit('no such driver')", "no such driver"),
        ("import time; time.sleep(60)", "mlx did not answer within 0.5 s"),
        ("print('nonsense')", "exit status 0"),
    ],
)
def test_a_driver_that_takes_its_process_down_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, trouble: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{source}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(machine_probe.sys, "executable", str(program))
    monkeypatch.setattr(machine_probe, "PROBE_SECONDS", 0.5 if "sleep" in source else 30.0)
    assert probe_machine("mlx").trouble == trouble


def test_a_backend_that_cannot_be_imported_is_a_finding_and_codecs_are_still_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "rvc_batch.engine.torch_nets.backend"
    # an earlier test may have left the module on its package, where `from … import` looks first
    monkeypatch.delattr(importlib.import_module("rvc_batch.engine.torch_nets"), "backend", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    found = machine_probe.look_around("torch")
    assert found.trouble.startswith("torch cannot be used: "), found.trouble
    assert name in found.trouble
    assert "WAV" in found.codecs


# --- the command ---


@pytest.mark.parametrize(("break_it", "code"), [(lambda home: None, 1), (no_network, 2)], ids=["warnings", "faults"])
def test_the_command_says_it_all_and_its_exit_code_is_the_worst(
    home: Home, queue: Queue, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[Home], None], code: int
) -> None:
    monkeypatch.setattr(doctor_module, "examine", functools.partial(examine, probe=lambda _: SOUND))
    break_it(home)
    shown = run(home, "doctor", "--deep", code=code).stdout
    assert "WARNING  daemon" in shown
    assert "→ rvc-batch run" in shown
    record = json.loads(run(home, "doctor", "--json", code=code).stdout)
    assert (record["version"], record["exit_code"]) == (1, code)
    assert {"check", "level", "what", "remedy"} == set(record["findings"][0])


def test_a_box_without_warnings_exits_with_0(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "examine", lambda *_, **__: iter([Finding("all", Level.OK, "well")]))
    monkeypatch.setattr(checks, "examine_service", lambda *_: iter([]))
    assert run(home, "doctor").stdout.splitlines()[-1] == "1 checks, 0 warnings, 0 faults"

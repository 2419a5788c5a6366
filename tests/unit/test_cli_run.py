"""`rvc-batch run` hands its options to the daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rvc_batch import logs
from rvc_batch.cli import run
from rvc_batch.cli.context import Context
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs import daemon
from rvc_batch.jobs.machine import started_by
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import queued

FILE = {"as_json": False, "max_bytes": 10_000_000, "kept": 5}


def invoke(home: Home, *arguments: str) -> Any:
    app = typer.Typer()

    @app.callback()
    def shared(ctx: typer.Context) -> None:
        ctx.obj = Context(home=home)

    run.register(app)
    return CliRunner().invoke(app, ["run", *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    class Recorded:
        def __init__(self, *arguments: Any) -> None:
            calls.extend(arguments)

        def run(self) -> None:
            calls.append("run")

    monkeypatch.setattr(daemon, "Daemon", Recorded)
    monkeypatch.setattr(logs, "configure", lambda folder, **how: calls.append((folder, how)))
    return calls


def test_options_reach_the_daemon(tmp_path: Path, started: list[Any]) -> None:
    home = Home(tmp_path)
    result = invoke(home, "--backend", "torch", "--until-idle", "--log-level", "debug")
    assert result.exit_code == 0
    log, used_home, settings, options, ran = started
    assert log == (home.logs, FILE | {"level": "debug", "to_stderr": True})
    assert (used_home, ran) == (home, "run")
    assert settings.worker.backend == "torch"
    assert options.until_idle
    assert home.inbox.is_dir()


def test_the_end_of_a_run_is_told_as_json(tmp_path: Path, started: list[Any]) -> None:
    home = Home(tmp_path)
    home.create()
    queue = Queue.open(home.database)
    queued(queue)
    queue.close()
    told = json.loads(invoke(home, "--until-idle", "--json").stdout)
    assert (told["version"], told["jobs"]["queued"], told["jobs"]["done"]) == (1, 1, 0)


def test_who_started_it_is_known_from_the_environment() -> None:
    assert started_by({"XPC_SERVICE_NAME": "io.github.rvc-batch"}) == "launchd io.github.rvc-batch"
    assert started_by({"XPC_SERVICE_NAME": "0", "INVOCATION_ID": "ab"}) == "systemd"
    assert started_by({}) == "a service manager"


def test_settings_read_again_keep_what_the_command_line_said(tmp_path: Path, started: list[Any]) -> None:
    invoke(Home(tmp_path), "--backend", "torch")
    options = started[3]
    home = Home(tmp_path)
    home.config_file.write_text('[worker]\nbackend = "mlx"\nmax_attempts = 7\n')
    again = options.adjust(Context(home=home).settings)
    assert (again.worker.backend, again.worker.max_attempts) == ("torch", 7)


def test_settings_of_the_log_reach_it(tmp_path: Path, started: list[Any]) -> None:
    (tmp_path / "rvc-batch.toml").write_text('[log]\nformat = "json"\nmax_mb = 0.5\nkept = 2\n')
    invoke(Home(tmp_path))
    assert started[0][1] == {"level": "info", "to_stderr": True, "as_json": True, "max_bytes": 500_000, "kept": 2}
    started[3].reopen_logs(started[2])
    assert started[-1] == started[0]


def test_unknown_backend_is_refused(tmp_path: Path, started: list[Any]) -> None:
    result = invoke(Home(tmp_path), "--backend", "tpu")
    assert isinstance(result.exception, SettingsInvalid)
    assert not started


def test_a_service_logs_to_the_file_only_and_is_watched(tmp_path: Path, started: list[Any]) -> None:
    home = Home(tmp_path)
    home.create()
    assert invoke(home, "--service").exit_code == 0
    assert started[0] == (home.logs, FILE | {"level": "info", "to_stderr": False})
    started[3].on_beat()


def test_a_service_with_bad_settings_gives_up_at_the_fifth_start_and_not_before(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    home.config_file.write_text("watch = 1\n")
    codes = [1 if invoke(home, "--service").exception else 0 for _ in range(6)]
    assert codes == [1, 1, 1, 1, 0, 1]  # the sixth is a new series: somebody started it again
    assert invoke(home).exit_code == 1  # in a terminal nothing is counted


def test_large_standard_error_is_emptied_and_a_small_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 10)
    path = tmp_path / "launchd.log"
    path.write_bytes(b"x" * 10)
    with path.open("ab") as file:
        monkeypatch.setattr(logs, "STDERR", file.fileno())
        logs.trim_standard_error()
        assert path.stat().st_size == 10
        file.write(b"x")
        file.flush()
        logs.trim_standard_error()
        assert path.stat().st_size == 0

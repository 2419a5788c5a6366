"""`rvc-batch run` hands its options to the daemon."""

from __future__ import annotations

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
    monkeypatch.setattr(logs, "configure", lambda folder, level: calls.append((folder, level)))
    return calls


def test_options_reach_the_daemon(tmp_path: Path, started: list[Any]) -> None:
    home = Home(tmp_path)
    result = invoke(home, "--backend", "torch", "--until-idle", "--log-level", "debug")
    assert result.exit_code == 0
    log, used_home, settings, options, ran = started
    assert log == (home.logs, "debug")
    assert (used_home, ran) == (home, "run")
    assert settings.worker.backend == "torch"
    assert options.until_idle
    assert home.inbox.is_dir()


def test_settings_read_again_keep_what_the_command_line_said(tmp_path: Path, started: list[Any]) -> None:
    invoke(Home(tmp_path), "--backend", "torch")
    options = started[3]
    home = Home(tmp_path)
    home.config_file.write_text('[worker]\nbackend = "mlx"\nmax_attempts = 7\n')
    again = options.adjust(Context(home=home).settings)
    assert (again.worker.backend, again.worker.max_attempts) == ("torch", 7)


def test_unknown_backend_is_refused(tmp_path: Path, started: list[Any]) -> None:
    result = invoke(Home(tmp_path), "--backend", "tpu")
    assert isinstance(result.exception, SettingsInvalid)
    assert not started

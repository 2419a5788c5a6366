"""Runs a command of the command line in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from rvc_batch.cli import build_app
from rvc_batch.errors import RvcBatchError
from rvc_batch.home import Home


def run(home: Home, *arguments: str, code: int = 0) -> Result:
    """Return what a command printed; what it raises of ours is raised here."""
    result = CliRunner().invoke(build_app(), ["--home", str(home.root), *arguments])
    if isinstance(result.exception, RvcBatchError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result

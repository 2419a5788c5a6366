"""Ctrl-C in a real terminal, which sends the signal to daemon and worker alike."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from rvc_batch.home import Home
from rvc_batch.jobs.models import JobState
from tests.daemon_harness import ROOT, drop, eventually, jobs_of, renders
from tests.job_fakes import files_below


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_ctrl_c_gives_the_job_back_and_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tests.daemon_harness", str(home.root)])
    try:
        drop(home, "slow-60-a.wav")
        eventually(lambda: len(renders(home)) == 1, "the job is at work", 60)
        os.write(terminal, b"\x03")
        said = b""
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
        _, status = os.waitpid(child, 0)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said.decode(errors="replace")
    assert b"stopping after the present segment; signal again to stop at once" in said
    (job,) = jobs_of(home)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert files_below(home.outbox) == []

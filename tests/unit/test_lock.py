"""The lock of one daemon, and of one worker, per home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvc_batch.errors import DaemonRunning
from rvc_batch.jobs.lock import FileLock, holder_of


def test_second_holder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    with (
        FileLock(path, wait=False),
        pytest.raises(DaemonRunning, match=f"process {os.getpid()} since 20"),
        FileLock(path, wait=False),
    ):
        pass


def test_lock_is_free_again_after_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "worker.lock"
    assert holder_of(path) is None
    with FileLock(path, wait=False):
        assert holder_of(path) == os.getpid()
    assert holder_of(path) is None
    with FileLock(path, wait=False):
        pass

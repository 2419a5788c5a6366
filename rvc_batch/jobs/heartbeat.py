"""The heartbeat file state/daemon.json: how `status` knows, without a database, whether the daemon lives and works.

Written whole about once a second, read by anybody, never locked. A process number alone proves nothing, because
numbers are used again; with the start time of the process it does.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import psutil

from rvc_batch.home import Home
from rvc_batch.jobs import durable
from rvc_batch.jobs.machine import open_files, open_files_limit
from rvc_batch.jobs.selftest import SelfTestRecord
from rvc_batch.jobs.supervisor import WorkerSnapshot
from rvc_batch.jobs.watcher import WatcherStatus
from rvc_batch.version import __version__

FILE_NAME = "daemon.json"
VERSION = 1


class HeartbeatFile:
    """Writes the heartbeat of this process."""

    def __init__(self, home: Home, started_at: float, started_by: str) -> None:
        self._path = heartbeat_path(home)
        self._fixed = {
            "version": VERSION,
            "pid": os.getpid(),
            "started_at": started_at,
            "started_by": started_by,
            "process_start": psutil.Process().create_time(),
            "host": platform.node(),
            "app_version": __version__,
        }

    def write(
        self,
        now: float,
        *,
        worker: WorkerSnapshot,
        watcher: WatcherStatus,
        self_test: SelfTestRecord | None,
        database_busy: int,
        last_error: str | None,
    ) -> None:
        """Replace the file.

        Raises:
            OSError: it cannot be written.
        """
        record = {
            **self._fixed,
            "updated_at": now,
            "worker": asdict(worker),
            "watcher": asdict(watcher) | {"error": watcher.error or None},
            "self_test": None if self_test is None else asdict(self_test),
            "database_busy": database_busy,
            "last_error": last_error,
            "open_files": open_files(),
            "open_files_limit": open_files_limit(),
        }
        durable.write_whole(self._path, json.dumps(record).encode(), durable=False)

    def remove(self) -> None:
        """Remove the file: the daemon ended on purpose."""
        self._path.unlink(missing_ok=True)


def heartbeat_path(home: Home) -> Path:
    """Return where the heartbeat file is."""
    return home.state / FILE_NAME

"""What a daemon would leave behind for `status` to read."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import psutil

from rvc_batch.home import Home
from tests.queue_fakes import EPOCH


def beat(home: Home, *, at: float = EPOCH, pid: int | None = None, **changes: object) -> None:
    """Write the heartbeat of a daemon that is this process."""
    record: dict[str, object] = {
        "version": 1,
        "pid": os.getpid() if pid is None else pid,
        "started_at": EPOCH - 3600,
        "updated_at": at,
        "process_start": psutil.Process().create_time(),
        "host": platform.node(),
        "app_version": "0.1.0",
        "worker": {
            "pid": 4711,
            "state": "idle",
            "device": "Apple M4 Pro",
            "backend": "mlx",
            "warm_voices": ["anna", "tom"],
            "rss": 4_000_000_000,
            "job_id": None,
            "updated_at": at - 1,
            "restarts": 2,
        },
        "watcher": {"inbox": "inbox", "mode": "inotify", "last_rescan_at": at - 7, "error": None},
        "last_error": None,
    }
    (home.state / "daemon.json").write_text(json.dumps(record | changes))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid

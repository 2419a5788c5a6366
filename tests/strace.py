"""Runs a function in a forked process under strace: counts its system calls, or kills or fails the Nth. Linux only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# What changes a disk, and what talks to other processes. The ? is for calls that an architecture does not have.
CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "?rename", "renameat", "?renameat2", "?link", "linkat",
    "?unlink", "unlinkat", "?mkdir", "mkdirat", "?rmdir",
)  # fmt: skip
INSTALL = "strace is missing; `make strace` or your package manager installs it (apt-get install strace)"
FAILED = 1


def require() -> str:
    """Return the path of strace.

    Raises:
        RuntimeError: there is none; says what to do.
    """
    found = shutil.which("strace")
    if found is None:
        raise RuntimeError(INSTALL)
    return found


def traced(action: Callable[[], None], *options: str, record: Path | str = "/dev/null", log: Path | None = None) -> int:
    """Fork, attach strace, let the child do `action`; return its exit status, or minus the signal that killed it.

    Call it only in a process without threads. Nothing before `action` is traced, so calls are counted from its start.

    Args:
        action: an exception ends it with status 1 and leaves its traceback in `log`.
        options: of strace.
        record: where strace writes what it saw.
        log: takes the place of standard output and error of the child.
    """
    strace = require()
    gate, opener = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(opener)
        _act(action, gate, log)
    os.close(gate)
    command = [strace, *options, "-o", str(record), "-p", str(child)]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    said = b""
    while b"attached" not in said:
        line = tracer.stderr.readline()
        if not line:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise RuntimeError(f"strace cannot attach: {said.decode(errors='replace')}; is ptrace forbidden here?")
        said += line
    os.write(opener, b"!")
    os.close(opener)
    _, status = os.waitpid(child, 0)
    tracer.communicate()
    return os.waitstatus_to_exitcode(status)


def count(action: Callable[[], None], record: Path) -> dict[str, int]:
    """Do `action` undisturbed; return how often it made each of `CALLS`.

    Raises:
        RuntimeError: it failed.
    """
    log = record.with_suffix(".log")
    if traced(action, "-e", f"trace={','.join(CALLS)}", record=record, log=log) != 0:
        raise RuntimeError(f"it fails undisturbed: {log.read_text()}")
    return dict(Counter(re.findall(r"^(\w+)\(", record.read_text(errors="replace"), re.MULTILINE)))


def strike(action: Callable[[], None], call: str, number: int, how: str, *options: str, log: Path | None = None) -> int:
    """Do `action` and kill or fail it at its Nth call of this name (of each thread): `signal=KILL`, `error=EIO`, …"""
    return traced(action, *options, "-e", f"trace={call}", "-e", f"inject={call}:{how}:when={number}", log=log)


def _act(action: Callable[[], None], gate: int, log: Path | None) -> None:
    status = FAILED
    try:
        output = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.read(gate, 1)
        action()
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        sys.stderr.flush()
        os._exit(status)

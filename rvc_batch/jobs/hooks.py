"""Calls a hook: a command that gets JSON on its standard input, or a URL that gets it as a POST. No shell, ever."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from rvc_batch.config import HookSettings
from rvc_batch.errors import HookFailed
from rvc_batch.home import Home
from rvc_batch.jobs.notices import Batch
from rvc_batch.version import __version__

CALL_SECONDS = 5.0
BODY_VERSION = 1
SAID_CHARS = 300  # of what a failing command said


def body_of(batch: Batch, home: Home) -> dict[str, Any]:
    """Return what a hook is told: one object for all events of one kind that wait for it."""
    return {
        "version": BODY_VERSION,
        "event": batch.event,
        "summary": summary_of(batch),
        "count": len(batch.bodies),
        "home": str(home.root),
        "host": platform.node(),
        "events": list(batch.bodies),
    }


def summary_of(batch: Batch) -> str:
    """Return one line for a person."""
    first, count = batch.bodies[0], len(batch.bodies)
    if batch.event == "idle":
        return "nothing left to do"
    if batch.event == "paused":
        return f"paused: {batch.bodies[-1]['reason']}"
    if count > 1:
        return f"{count} files {batch.event}"
    why = f": {first['code']} {first['message']}" if batch.event == "failed" else ""
    return f"{first['source']} {batch.event}{why}"


def call(hook: HookSettings, batch: Batch, home: Home) -> None:
    """Tell a hook.

    Raises:
        HookFailed: it did not take it within `CALL_SECONDS`.
    """
    body = body_of(batch, home)
    if hook.command:
        _run(list(hook.command), body)
    else:
        _post(hook.url, body)


def environment_of(body: dict[str, Any]) -> dict[str, str]:
    """Return what a command finds in its environment; the names of a single job only if there is one."""
    found = {name: str(body[name]) for name in ("event", "summary", "count", "home")}
    if body["count"] == 1:
        found |= {name: str(value) for name, value in body["events"][0].items() if value is not None}
    clean = (value.replace("\0", "") for value in found.values())
    return {f"RVCB_{name.upper()}": value for name, value in zip(found, clean, strict=True)}


def _run(command: list[str], body: dict[str, Any]) -> None:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment_of(body)},
            start_new_session=True,  # so that what it starts ends with it
        )
    except OSError as e:
        raise HookFailed(f"{command[0]} cannot be started ({e.strerror})") from e
    with process:
        try:
            said, _ = process.communicate(json.dumps(body).encode(), timeout=CALL_SECONDS)
        except subprocess.TimeoutExpired as e:
            os.killpg(process.pid, signal.SIGKILL)
            raise HookFailed(f"{command[0]} did not end within {CALL_SECONDS:g} s; it was ended") from e
    if process.returncode:
        last = said.decode(errors="replace").strip()[-SAID_CHARS:]
        raise HookFailed(f"{command[0]} ended with {process.returncode}{f': {last}' if last else ''}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would lose its body."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, body: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": f"rvc-batch/{__version__}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    where = f"{request.type}://{request.host}"  # the rest may be a secret
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=CALL_SECONDS) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as e:
        e.close()
        raise HookFailed(f"{where} answered {e.code}") from e
    except (OSError, HTTPException, ValueError) as e:
        raise HookFailed(f"{where} did not take it ({getattr(e, 'reason', None) or e})") from e

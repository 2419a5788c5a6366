"""Calling a hook: JSON and environment, no shell, five seconds, and a sentence for whatever goes wrong."""

import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rvc_batch.config import HookSettings, Settings, load_settings
from rvc_batch.errors import HookFailed, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.jobs import hooks
from rvc_batch.jobs.hooks import body_of, call, environment_of, summary_of
from rvc_batch.jobs.notices import Batch
from tests.queue_fakes import EPOCH

SONG = {"at": EPOCH, "job": 7, "source": "anna/a; rm -rf $HOME.wav", "voice": "anna", "output": "anna/a.wav"}
DONE = Batch(hook="h", event="done", rows=(1,), bodies=(SONG,))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_command_gets_json_on_its_input_and_facts_in_its_environment(home: Home) -> None:
    keep = home.root / "kept.json"
    code = (
        "import json, os, sys; "
        f"json.dump([json.load(sys.stdin), dict(os.environ), sys.argv[1:]], open({str(keep)!r}, 'w'))"
    )
    call(HookSettings(command=(sys.executable, "-c", code, "$HOME `id`")), DONE, home)
    body, environment, arguments = json.loads(keep.read_text())
    assert (body["version"], body["event"], body["count"], body["events"]) == (1, "done", 1, [SONG])
    assert environment["RVCB_SOURCE"] == SONG["source"]
    assert (environment["RVCB_EVENT"], environment["RVCB_JOB"]) == ("done", "7")
    assert arguments == ["$HOME `id`"], "no shell looked at it"


def test_names_of_a_command_are_no_settings_of_ours(home: Home) -> None:
    names = environment_of(body_of(DONE, home))
    assert names
    assert not [name for name in names if name.startswith("RVC_BATCH_")]


@pytest.mark.parametrize(
    ("batch", "summary"),
    [
        (DONE, "anna/a; rm -rf $HOME.wav done"),
        (Batch("h", "done", tuple(range(14)), (SONG,) * 14), "14 files done"),
        (
            Batch("h", "failed", (1,), ({"source": "a.wav", "code": "E_INPUT_EMPTY", "message": "empty"},)),
            "a.wav failed: E_INPUT_EMPTY empty",
        ),
        (Batch("h", "paused", (1,), ({"reason": "disk swap"},)), "paused: disk swap"),
        (Batch("h", "idle", (1,), ({},)), "nothing left to do"),
    ],
)
def test_summary_is_one_line_for_a_person(batch: Batch, summary: str) -> None:
    assert summary_of(batch) == summary


def test_failing_commands_are_named_with_what_they_said(home: Home) -> None:
    with pytest.raises(HookFailed, match=r"python\S* ended with 3: no route"):
        call(HookSettings(command=(sys.executable, "-c", "print('no route'); raise SystemExit(3)")), DONE, home)
    with pytest.raises(HookFailed, match="/nowhere/hook cannot be started"):
        call(HookSettings(command=("/nowhere/hook",)), DONE, home)


def test_command_that_does_not_end_is_ended_with_all_it_started(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "CALL_SECONDS", 1.0)
    pid = home.root / "pid"
    with pytest.raises(HookFailed, match="did not end within 1 s"):
        call(HookSettings(command=("/bin/sh", "-c", f"sleep 600 & echo $! > {pid}; wait")), DONE, home)
    child = int(pid.read_text())
    for _ in range(200):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(child, 9)
    pytest.fail("the command's child went on")


@dataclass
class Target:
    """A web server that answers as told."""

    url: str
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def target() -> Iterator[Target]:
    found = Target("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.heard.append((self.path, body))
            code, headers = found.answers.pop(0) if found.answers else (204, {})
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found
        server.shutdown()


def test_url_gets_a_post(home: Home, target: Target) -> None:
    call(HookSettings(url=f"{target.url}/hook?token=s3cret"), DONE, home)
    ((path, body),) = target.heard
    assert path == "/hook?token=s3cret"
    assert body == body_of(DONE, home)


@pytest.mark.parametrize("answer", [(500, {}), (404, {}), (302, {"Location": "/elsewhere"})])
def test_answer_that_is_no_success_is_a_failure_without_the_secret(
    home: Home, target: Target, answer: tuple[int, dict[str, str]]
) -> None:
    target.answers.append(answer)
    with pytest.raises(HookFailed, match=f"answered {answer[0]}") as caught:
        call(HookSettings(url=f"{target.url}/hook?token=s3cret"), DONE, home)
    assert "s3cret" not in str(caught.value)
    assert len(target.heard) == 1, "a redirect is not followed"


def test_dead_port_and_silent_server_are_failures(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "CALL_SECONDS", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(HookFailed, match="did not take it"):
            call(HookSettings(url=f"http://127.0.0.1:{unused.getsockname()[1]}"), DONE, home)
        unused.listen()
        with pytest.raises(HookFailed, match="timed out"):
            call(HookSettings(url=f"http://127.0.0.1:{unused.getsockname()[1]}"), DONE, home)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[hooks]]\n", "either a command or a url"),
        ("[[hooks]]\ncommand = ['a']\nurl = 'http://x'\n", "either a command or a url"),
        ("[[hooks]]\nurl = 'file:///etc/passwd'\n", "begins with http"),
        ("[[hooks]]\ncommand = ['a']\non = ['dnoe']\n", "on"),
        ("[[hooks]]\ncommand = ['a']\n[[hooks]]\ncommand = ['a', 'b']\n", "names of their own"),
        ("[[hooks]]\ncommand = 'rm -rf x'\n", "command"),
    ],
)
def test_settings_of_hooks_are_checked(home: Home, text: str, says: str) -> None:
    home.config_file.write_text(text)
    with pytest.raises(SettingsInvalid, match=says):
        load_settings(home, {})


def test_hooks_come_from_the_settings_file(home: Home) -> None:
    home.config_file.write_text(
        "[[hooks]]\ncommand = ['/usr/local/bin/tell', '--loud']\non = ['failed']\n"
        "[[hooks]]\nurl = 'https://example.org/x?token=secret'\n[metrics]\ntextfile = '/tmp/rvcb.prom'\n"
    )
    settings = load_settings(home, {})
    assert [hook.key for hook in settings.hooks] == ["/usr/local/bin/tell", "https://example.org"]
    assert settings.hooks[0].on == ("failed",)
    assert Settings().hooks == ()

"""launchctl, systemctl, loginctl, journalctl and plutil as executables that remember, record and can be told to fail.

`ServiceControl(folder)` writes them to `folder/bin`. Each call is recorded in `argv`; `reply` queues exit codes for
calls that begin with some words; other calls behave as the real program does for one service. `start` either
pretends (writes the heartbeat of a daemon that is the test itself) or, after `run_for_real`, runs the program.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from rvc_batch.home import Home

SCRIPT = r"""
import json, os, sys, time
from pathlib import Path

folder = Path(__file__).parent.parent
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
call = " ".join([name, *arguments])
with (folder / "argv").open("a") as log:
    log.write(call + "\n")
replies = json.loads((folder / "replies.json").read_text())
for start, queue in replies.items():
    if call.startswith(start) and queue:
        code, text = queue.pop(0)
        (folder / "replies.json").write_text(json.dumps(replies))
        print(text)
        sys.exit(code)
config = json.loads((folder / "config.json").read_text())
state_file = folder / "state.json"
state = json.loads(state_file.read_text()) if state_file.exists() else {}


def save():
    state_file.write_text(json.dumps(state))


def start(file):
    if config["is_real"]:
        import plistlib, shlex, subprocess

        if name == "launchctl":
            found = plistlib.loads(Path(file).read_bytes())
            command, folders = found["ProgramArguments"], {"cwd": found["WorkingDirectory"]}
            environment, log = found["EnvironmentVariables"], open(found["StandardErrorPath"], "ab")
        else:
            lines = Path(file).read_text().splitlines()
            command = shlex.split(next(x for x in lines if x.startswith("ExecStart=")).removeprefix("ExecStart="))
            environment, folders, log = {"PATH": os.environ["PATH"]}, {}, subprocess.DEVNULL
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        daemon = subprocess.Popen(command, env=environment, start_new_session=True, **streams, **folders)
        state["pid"] = daemon.pid
    else:
        state["pid"] = config["pid"]
        beat = dict(config["heartbeat"], updated_at=time.time())
        Path(config["daemon_json"]).write_text(json.dumps(beat)) if config["is_heard"] else None


def stop():
    pid = state.pop("pid", None)
    if not config["is_real"] or pid is None:
        Path(config["daemon_json"]).unlink(missing_ok=True)
        return
    if is_alive(pid):
        os.kill(pid, 15)
    while is_alive(pid):
        time.sleep(0.05)


def is_alive(pid):
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")  # Linux shows who is dead and not yet buried
        return not Path("/proc/self").exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


if name == "launchctl":
    verb, rest = arguments[0], arguments[1:]
    if verb == "bootstrap":
        if state:
            sys.exit(37)
        state.update(domain=rest[0], file=rest[1])
        start(rest[1])
    elif verb == "bootout":
        if state.get("domain") != rest[0].rsplit("/", 1)[0]:
            sys.exit(3)
        stop()
        state.clear()
    elif verb == "print":
        if state.get("domain") != rest[0].rsplit("/", 1)[0]:
            sys.exit(113)
        pid = state.get("pid")
        dead = config["is_real"] and pid is not None and not is_alive(pid)
        print(rest[0] + " = {")
        print("\tlast exit code = 78" if dead or pid is None else f"\tpid = {pid}")
        print("}")
    elif verb == "kickstart":
        stop()
        start(state["file"])
    save()
elif name == "systemctl":
    words = [a for a in arguments if not a.startswith("--")]
    file = Path(config["unit"])
    if words[0] == "show":
        print("LoadState=loaded" if file.exists() else "LoadState=not-found")
        pid = state.get("pid")
        dead = pid is None or (config["is_real"] and not is_alive(pid))
        print(f"MainPID={0 if dead else pid}")
        print("ActiveState=" + state.get("active", "inactive"))
    elif words[0] in ("start", "restart"):
        stop()
        start(file)
    elif words[0] == "stop":
        if "pid" not in state:
            sys.exit(5)
        stop()
    elif words[0] == "disable" and not file.exists():
        print("Failed to disable unit: Unit file rvc-batch.service does not exist.")
        sys.exit(1)
    save()
elif name == "loginctl":
    print("Linger=yes")
"""


class ServiceControl:
    """The executables, and what they remember."""

    def __init__(self, folder: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in ("launchctl", "systemctl", "loginctl", "journalctl", "plutil"):
            path = folder / "bin" / name
            path.write_text(f"#!{sys.executable} -IS\n{SCRIPT}")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        self._write("replies.json", {})
        self.config = {
            "is_real": False,
            "is_heard": True,
            "pid": os.getpid(),
            "daemon_json": str(home.state / "daemon.json"),
            "unit": "",
            "heartbeat": {
                "version": 1,
                "pid": os.getpid(),
                "started_at": 0.0,
                "process_start": psutil.Process().create_time(),
                "app_version": "0.1.0",
                "worker": {"state": "idle"},
                "watcher": {},
                "self_test": {
                    "started_at": 0.0,
                    "ended_at": 1.0,
                    "checking": "",
                    "findings": [{"check": "inbox/", "level": "ok", "what": "takes files", "remedy": ""}],
                },
                "last_error": None,
            },
        }
        self.configure()

    def configure(self, **changes: object) -> None:
        """Change what `start` does."""
        self.config |= changes
        self._write("config.json", self.config)

    def reply(self, start: str, *replies: tuple[int, str]) -> None:
        """Answer the next calls that begin with `start` with these exit codes and texts."""
        replies_now = json.loads((self._folder / "replies.json").read_text())
        self._write("replies.json", replies_now | {start: replies})

    def calls(self, *names: str) -> list[str]:
        """Return what was called, without the questions, and forget it."""
        log = self._folder / "argv"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        asked = ("launchctl print", "systemctl show", "systemctl --user show", "loginctl", "plutil", "journalctl")
        return [line for line in lines if not line.startswith(asked) or (names and line.startswith(names))]

    @property
    def remembers(self) -> dict[str, object]:
        """What is loaded."""
        path = self._folder / "state.json"
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _write(self, name: str, value: object) -> None:
        (self._folder / name).write_text(json.dumps(value))

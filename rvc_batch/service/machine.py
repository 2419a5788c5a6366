"""What an installation does to the machine: commands and files. A dry run says the same and does none of it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rvc_batch.errors import ServiceFailed
from rvc_batch.service.definition import Account

COMMAND_SECONDS = 120
NO_COMMAND = 127


@dataclass(frozen=True)
class Answer:
    """What a command said. `text` is both its outputs."""

    code: int
    text: str


class Machine(Protocol):
    """The machine that gets the service."""

    is_dry: bool

    def ask(self, *command: str) -> Answer: ...
    def do(self, *command: str) -> Answer: ...
    def write(self, path: Path, data: bytes, *, lint: tuple[str, ...] = ()) -> None: ...
    def remove(self, path: Path) -> None: ...
    def make_folder(self, path: Path, owner: Account) -> None: ...


class RealMachine:
    """This machine."""

    is_dry = False

    def ask(self, *command: str) -> Answer:
        """Run a command that changes nothing; one that does not exist answers 127."""
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=COMMAND_SECONDS
            )
        except FileNotFoundError:
            return Answer(NO_COMMAND, f"{command[0]} is not installed")
        except subprocess.TimeoutExpired:
            return Answer(1, f"no answer within {COMMAND_SECONDS} s")
        return Answer(done.returncode, (done.stdout + done.stderr).decode(errors="replace").strip())

    def do(self, *command: str) -> Answer:
        """Run a command."""
        return self.ask(*command)

    def write(self, path: Path, data: bytes, *, lint: tuple[str, ...] = ()) -> None:
        """Put a file in place whole, readable by all, after `lint` (a command; skipped where it is not installed)
        found nothing wrong with it.

        Raises:
            ServiceFailed: it cannot be written, or lint refused it; the old file stays.
        """
        temp: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=path.parent, prefix=".rvc-batch-", suffix=".part")
            temp = Path(name)
            with open(number, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(data)
            if lint and shutil.which(lint[0]):
                answer = self.ask(*lint, str(temp))
                if answer.code:
                    raise ServiceFailed(f"{' '.join(lint)} refuses the new {path.name}: {answer.text}")
            temp.chmod(0o644)
            temp.replace(path)
        except OSError as e:
            raise ServiceFailed(f"{path} cannot be written ({e.strerror}); a system service needs sudo") from e
        finally:
            if temp is not None:
                temp.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file; its absence is fine.

        Raises:
            ServiceFailed: it cannot be removed.
        """
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            raise ServiceFailed(f"{path} cannot be removed ({e.strerror}); a system service needs sudo") from e

    def make_folder(self, path: Path, owner: Account) -> None:
        """Create a folder and its parents where missing; what is new belongs to `owner`.

        Raises:
            ServiceFailed: it cannot be created.
        """
        try:
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                if os.geteuid() != owner.uid:
                    os.chown(folder, owner.uid, owner.gid)
        except OSError as e:
            raise ServiceFailed(f"{path} cannot be created ({e.strerror})") from e


class DryRun:
    """Says what would be done; asks the real machine where a question changes nothing."""

    is_dry = True

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._real = say, RealMachine()

    def ask(self, *command: str) -> Answer:
        """Ask the machine."""
        return self._real.ask(*command)

    def do(self, *command: str) -> Answer:
        """Say the command."""
        self._say(f"$ {shlex.join(command)}")
        return Answer(0, "")

    def write(self, path: Path, data: bytes, *, lint: tuple[str, ...] = ()) -> None:
        """Say the file."""
        self._say(f"write {path}\n{data.decode()}")

    def remove(self, path: Path) -> None:
        """Say the removal."""
        self._say(f"remove {path}")

    def make_folder(self, path: Path, owner: Account) -> None:
        """Say the folder."""
        if not path.exists():
            self._say(f"create {path} for {owner.name}")

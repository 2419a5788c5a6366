"""Which service of the system serves a home, by the files that say so. Asks nobody, so that `status` can use it."""

from __future__ import annotations

from pathlib import Path

from rvc_batch.home import Home
from rvc_batch.jobs.status import ServiceFacts
from rvc_batch.service.definition import LABEL, UNIT

ROOT = Path("/")


def installed_service(home: Home, *, person: Path | None = None, root: Path = ROOT) -> ServiceFacts | None:
    """Return the installed service of this home; that of the machine comes first.

    Args:
        home: whom it must serve.
        person: home folder of the user whose services are looked at; None means the one who asks.
        root: what `/` is, for tests.
    """
    person = Path.home() if person is None else person
    places = (
        ("launchd", True, root / "Library/LaunchDaemons" / f"{LABEL}.plist"),
        ("launchd", False, person / "Library/LaunchAgents" / f"{LABEL}.plist"),
        ("systemd", True, root / "etc/systemd/system" / UNIT),
        ("systemd", False, person / ".config/systemd/user" / UNIT),
    )
    for manager, is_system, file in places:
        try:
            data = file.read_bytes()
        except OSError:
            continue
        found = _plist(data) if manager == "launchd" else _unit(data.decode("utf-8", "replace"))
        if found is not None and found[0] == str(home.root):
            return ServiceFacts(manager=manager, is_system=is_system, file=str(file), user=found[1])
    return None


def _plist(data: bytes) -> tuple[str, str] | None:
    """Return home and user of a plist."""
    import plistlib
    from xml.parsers.expat import ExpatError

    try:
        keys = plistlib.loads(data)
        return _home_of(keys["ProgramArguments"]), str(keys.get("UserName", ""))
    except (plistlib.InvalidFileException, ExpatError, KeyError, TypeError, ValueError, IndexError):
        return None


def _unit(text: str) -> tuple[str, str] | None:
    """Return home and user of a unit file."""
    import shlex

    directives = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        words = shlex.split(directives["ExecStart"].replace("%%", "%").replace("$$", "$"))
        return _home_of(words), directives.get("User", "")
    except (KeyError, ValueError, IndexError):
        return None


def _home_of(words: list[str]) -> str:
    return words[words.index("--home") + 1]

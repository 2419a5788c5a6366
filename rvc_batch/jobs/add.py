"""Drop a file into the inbox the way a careful producer does: whole, under a hidden name, then renamed.

It works with the daemon down, touches no database, and never replaces a file that waits in the inbox.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import EnvironmentFault, InputUnreadable, VoiceUnknown
from rvc_batch.home import Home
from rvc_batch.jobs.folders import Folders
from rvc_batch.jobs.output_names import candidates

Setting = str | int | float


def add_file(home: Home, source: Path, *, voice: str, voices: Sequence[str], settings: Mapping[str, Setting]) -> Path:
    """Copy an audio file into the inbox and return where it is.

    Args:
        home: the render box.
        source: the file; it stays where it is.
        voice: name of a voice or recipe, or empty for the default voice.
        voices: names of voices and recipes there are.
        settings: what differs from the configured settings; written to `NAME.toml` beside the copy.

    Raises:
        VoiceUnknown: no such voice.
        SettingsInvalid: an unknown setting or a bad value.
        InputUnreadable: the source is not a file that can be read.
        FolderGone: the inbox is missing, or its volume is not mounted.
        EnvironmentFault: the inbox cannot be written.
    """
    if voice and voice not in voices:
        raise VoiceUnknown(f"there is no voice {voice!r}; voices and recipes are {', '.join(voices) or 'none yet'}")
    ConversionSettings().with_changes(**settings)
    if not source.is_file():
        raise InputUnreadable(f"{source} is {'not a file' if source.exists() else 'not there'}; name an audio file")
    Folders(home, marks=False).check_inbox()
    folder = home.inbox / voice
    hidden = folder / f".add-{secrets.token_hex(6)}.part"
    try:
        folder.mkdir(exist_ok=True)
        _copy(source, hidden)
        return _publish(hidden, folder, source.name, _as_toml(settings))
    except OSError as e:
        raise EnvironmentFault(f"{source} could not be copied into {folder}: {e.strerror or e}") from e
    finally:
        hidden.unlink(missing_ok=True)


def _publish(hidden: Path, folder: Path, name: str, sidecar_text: str) -> Path:
    """Give the hidden file the first free name, its settings file first: the watcher must never see it alone."""
    for candidate in candidates(os.fsencode(name)):
        target = folder / os.fsdecode(candidate)
        sidecar = target.with_name(target.name + ".toml")
        if target.exists() or sidecar.exists():
            continue
        try:
            if sidecar_text:
                with sidecar.open("x", encoding="utf-8") as file:
                    file.write(sidecar_text)
            _rename_exclusively(hidden, target)
        except FileExistsError:
            if sidecar_text:
                sidecar.unlink(missing_ok=True)
            continue
        return target
    raise AssertionError("candidates never end")


def _copy(source: Path, target: Path) -> None:
    try:
        reading = source.open("rb")
    except OSError as e:
        raise InputUnreadable(f"{source} cannot be read: {e.strerror}") from e
    with reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def _rename_exclusively(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a volume without hard links; the name was free a moment ago
        source.rename(target)


def _as_toml(settings: Mapping[str, Setting]) -> str:
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items())

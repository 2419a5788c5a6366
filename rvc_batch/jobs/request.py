"""What the user asks for by where a file is dropped and what lies beside it: voice, settings, output path.

    inbox/<voice>/album/song.wav        the first folder is the voice → outbox/<voice>/album/song.wav
    inbox/song.wav                      default_voice, else the only voice there is
    song.wav.toml beside song.wav       `voice` and any conversion setting, for this file alone

A settings file that cannot be used is an error, never a silent default. Nothing here writes a file.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.errors import SettingsInvalid, SidecarInvalid, VoiceNotChosen, VoiceUnknown
from rvc_batch.jobs.durable import READ_ONLY

SIDECAR_LIMIT_BYTES = 65_536


@dataclass(frozen=True)
class Request:
    """The voice and settings one file is to be rendered with."""

    voice: str
    settings: ConversionSettings


@dataclass(frozen=True)
class Choices:
    """What there is to choose from: the voices of the library, and the configured defaults."""

    voices: Sequence[str]
    default_voice: str
    settings: ConversionSettings


def read_request(source: Path, rel: bytes, choices: Choices) -> Request:
    """Decide voice and settings of the file `source`, dropped as `rel` below the inbox.

    Raises:
        SidecarInvalid: the settings file beside it cannot be used; names the line.
        VoiceUnknown: the folder or the settings file names no voice of the library.
        VoiceNotChosen: nothing names a voice, and there is no default.
    """
    sidecar = _sidecar(source)
    text = _read_sidecar(sidecar)
    voice, settings = ("", choices.settings) if text is None else _parse(sidecar.name, text, choices.settings)
    return Request(_known(voice, choices.voices) if voice else choose_voice(rel, choices), settings)


def choose_voice(rel: bytes, choices: Choices) -> str:
    """Return the voice that the path of a file names, or the default.

    Raises:
        VoiceUnknown, VoiceNotChosen: see `read_request`.
    """
    folder, slash, _ = rel.partition(b"/")
    if slash:
        return _known(os.fsdecode(folder), choices.voices)
    if choices.default_voice:
        return _known(choices.default_voice, choices.voices)
    if len(choices.voices) == 1:
        return choices.voices[0]
    listed = f"there are {len(choices.voices)}: {_listed(choices.voices)}" if choices.voices else "there is none yet"
    raise VoiceNotChosen(
        f"no voice is chosen, and {listed}; drop the file into inbox/<voice>/ or set default_voice in rvc-batch.toml"
    )


def has_sidecar(source: Path) -> bool:
    """Is there a settings file beside this audio file?"""
    return os.path.lexists(_sidecar(source))


def output_rel(rel: bytes, settings: ConversionSettings) -> bytes:
    """Return the path below the outbox: that below the inbox, with the suffix of the output format."""
    suffix = OUTPUT_FORMATS[settings.output_format][0]
    return os.fsencode(Path(os.fsdecode(rel)).with_suffix(suffix))


def _known(name: str, voices: Sequence[str]) -> str:
    if name in voices:
        return name
    same = [v for v in voices if _folded(v) == _folded(name)]
    if len(same) == 1:
        return same[0]
    near = same or difflib.get_close_matches(_folded(name), [_folded(v) for v in voices], n=3, cutoff=0.5)
    meant = [v for v in voices if v in near or _folded(v) in near]
    hint = f"did you mean {_listed(meant)}?" if meant else f"the library holds {_listed(voices) or 'no voice yet'};"
    raise VoiceUnknown(f"there is no voice {name!r}; {hint} put the voice into voices/ or use another folder")


def _listed(voices: Sequence[str], limit: int = 12) -> str:
    return ", ".join(voices[:limit]) + (", …" if len(voices) > limit else "")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _sidecar(source: Path) -> Path:
    return source.with_name(source.name + ".toml")


def _read_sidecar(path: Path) -> str | None:
    try:
        fd = os.open(path, READ_ONLY)
    except FileNotFoundError:
        return None
    except OSError as e:
        if len(os.fsencode(path.name)) > 255:  # the audio's own name leaves no room for a settings file
            return None
        raise SidecarInvalid(f"{path.name}: cannot be read ({e.strerror}); make it a readable, regular file") from e
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SidecarInvalid(f"{path.name}: is not a regular file; make it a text file or remove it")
        data = os.read(fd, SIDECAR_LIMIT_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > SIDECAR_LIMIT_BYTES:
        raise SidecarInvalid(f"{path.name}: more than {SIDECAR_LIMIT_BYTES} bytes; expected a few lines of settings")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise SidecarInvalid(f"{path.name}:{line}: not UTF-8 text; save it as UTF-8") from e


def _parse(name: str, text: str, settings: ConversionSettings) -> tuple[str, ConversionSettings]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise SidecarInvalid(f"{name}: not TOML: {e}; expected lines like `transpose = 3`") from e
    voice: Any = values.pop("voice", "")
    if not isinstance(voice, str):
        raise SidecarInvalid(f"{name}:{_line(text, 'voice')}: voice is {voice!r}, expected the name of a voice")
    for key, value in values.items():
        try:
            settings = settings.with_changes(**{key: value})
        except SettingsInvalid as e:
            raise SidecarInvalid(f"{name}:{_line(text, key)}: {e}") from e
    return voice, settings


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.split("=")[0].strip().strip("[]\"'") == key:
            return number
    return 1

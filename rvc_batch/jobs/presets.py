"""Settings in small TOML files: `song.wav.toml` of one file, `recipes/NAME.toml`, `voices/NAME.toml` of a voice.

Each holds conversion settings by name; a sidecar may name the voice, a recipe one or several. A file that cannot be
used is an error that names the line, never a silent default. Nothing here writes a file.
"""

from __future__ import annotations

import os
import stat
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import ConfigError, RecipeInvalid, SettingsInvalid, SidecarInvalid
from rvc_batch.jobs.durable import READ_ONLY

SUFFIX = ".toml"
LIMIT_BYTES = 65_536
MAX_VOICES = 64  # of one recipe


@dataclass(frozen=True)
class Preset:
    """What a settings file says.

    name: as messages show it. voices: those it names, in its order. values: conversion settings, each of them valid.
    voice_line: where it names them.
    """

    name: str
    voices: tuple[str, ...]
    values: Mapping[str, Any]
    voice_line: int = 1


@dataclass(frozen=True)
class Presets:
    """The recipes of a home, and the settings of its voices; None where there is no such folder."""

    recipes: Path | None = None
    voices: Path | None = None

    def recipe_names(self) -> list[str]:
        """Return the names of the recipes, sorted, in Unicode form NFC. Opens no file."""
        try:
            found = sorted(self.recipes.iterdir()) if self.recipes is not None else []
        except OSError:  # no such folder: no recipes
            return []
        return [nfc(f.name[: -len(SUFFIX)]) for f in found if f.name.endswith(SUFFIX) and not f.name.startswith(".")]

    def recipe(self, name: str) -> Preset:
        """Return a recipe.

        Raises:
            RecipeInvalid: it is gone, or cannot be used; names the line.
        """
        assert self.recipes is not None
        shown = f"{self.recipes.name}/{name}{SUFFIX}"
        found = read_preset(_place(self.recipes, name), shown, RecipeInvalid, max_voices=MAX_VOICES)
        if found is None:
            raise RecipeInvalid(f"{shown} is gone; write it again or use another folder")
        return found

    def of_voice(self, voice: str) -> Preset | None:
        """Return the settings of a voice, None if it has none of its own.

        Raises:
            RecipeInvalid: they cannot be used; names the line.
        """
        if self.voices is None:
            return None
        shown = f"{self.voices.name}/{voice}{SUFFIX}"
        return read_preset(_place(self.voices, voice), shown, RecipeInvalid, max_voices=0)


def sidecar_of(source: Path) -> Path:
    """Return where the settings file of an audio file is, if it has one."""
    return source.with_name(source.name + SUFFIX)


def read_sidecar(source: Path) -> Preset | None:
    """Return the settings file beside an audio file, None if there is none.

    Raises:
        SidecarInvalid: it cannot be used; names the line.
    """
    path = sidecar_of(source)
    return read_preset(path, path.name, SidecarInvalid, max_voices=1)


def read_preset(path: Path, name: str, error: type[ConfigError], *, max_voices: int) -> Preset | None:
    """Read a settings file without following a link or waiting for a FIFO; None if there is none.

    Args:
        name: what messages call it. max_voices: how many voices it may name; with 1, one as text.

    Raises:
        `error`: it cannot be used; names the line.
    """
    text = _read(path, name, error)
    if text is None:
        return None
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise error(f"{name}: not TOML: {e}; expected lines like `transpose = 3`") from e
    voice_line = _line(text, "voice")
    voices = _voices(values.pop("voice", ()), f"{name}:{voice_line}", error, max_voices) if max_voices else ()
    for key, value in values.items():
        try:
            ConversionSettings().with_changes(**{key: value})
        except SettingsInvalid as e:
            raise error(f"{name}:{_line(text, key)}: {e}") from e
    return Preset(name, voices, values, voice_line)


def _place(folder: Path, name: str) -> Path:
    """Return the file of a name, which the file system may hold in another Unicode form."""
    path = folder / f"{name}{SUFFIX}"
    if name.isascii() or path.exists() or not folder.is_dir():
        return path
    return next((f for f in folder.iterdir() if nfc(f.name) == nfc(path.name)), path)


def _voices(value: Any, place: str, error: type[ConfigError], most: int) -> tuple[str, ...]:
    named = [value] if isinstance(value, str) else value
    expected = "the name of a voice" if most == 1 else f"the name of a voice, or a list of 1 to {most} names"
    is_list = isinstance(named, list | tuple) and all(isinstance(each, str) and each for each in named)
    if not is_list or (isinstance(value, list) and (most == 1 or not 1 <= len(value) <= most)):
        raise error(f"{place}: voice is {value!r}, expected {expected}")
    if twice := sorted({each for each in named if list(named).count(each) > 1}):
        raise error(f"{place}: voice names {twice[0]!r} twice; name each voice once")
    return tuple(named)


def _read(path: Path, name: str, error: type[ConfigError]) -> str | None:
    try:
        fd = os.open(path, READ_ONLY)
    except FileNotFoundError:
        return None
    except OSError as e:
        if len(os.fsencode(path.name)) > 255:  # the name of what it belongs to leaves no room for a settings file
            return None
        raise error(f"{name}: cannot be read ({e.strerror}); make it a readable, regular file") from e
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise error(f"{name}: is not a regular file; make it a text file or remove it")
        data = os.read(fd, LIMIT_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > LIMIT_BYTES:
        raise error(f"{name}: more than {LIMIT_BYTES} bytes; expected a few lines of settings")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise error(f"{name}:{line}: not UTF-8 text; save it as UTF-8") from e


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.split("=")[0].strip().strip("[]\"'") == key:
            return number
    return 1


def folded(name: str) -> str:
    """Return what is equal for names that differ in case or Unicode composition only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def nfc(name: str) -> str:
    """Return a name in Unicode form NFC."""
    return unicodedata.normalize("NFC", name)


def named(name: str, names: Sequence[str]) -> str | None:
    """Return the one of some names that is meant: the same, else the only one that differs in case or composition."""
    if name in names:
        return name
    same = [each for each in names if folded(each) == folded(name)]
    return same[0] if len(same) == 1 else None

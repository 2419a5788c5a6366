"""What the user asks for by where a file is dropped and what lies beside it: voices, settings, output path.

    inbox/<voice>/album/song.wav        the first folder is the voice → outbox/<voice>/album/song.wav
    inbox/<recipe>/song.wav             or a recipe, which names one voice or several: a job for each
    inbox/song.wav                      default_voice, else the only voice there is
    song.wav.toml beside song.wav       `voice` and any conversion setting, for this file alone

A setting is taken from the first that has it: the file beside the audio, the recipe, `voices/<voice>.toml`,
`rvc-batch.toml`, the defaults. Nothing here writes a file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.errors import RecipeInvalid, VoiceNotChosen, VoiceUnknown
from rvc_batch.jobs.output_names import variant_name
from rvc_batch.jobs.presets import Preset, Presets, folded, named, read_sidecar, sidecar_of


@dataclass(frozen=True)
class Request:
    """The voice and settings one job is to be rendered with.

    presets: the settings files they come from, the weakest first. chosen_by: what named the voice.
    """

    voice: str
    settings: ConversionSettings
    presets: tuple[Preset, ...] = ()
    chosen_by: str = ""


@dataclass(frozen=True)
class Choices:
    """What there is to choose from: the voices of the library, the configured defaults, recipes and settings files."""

    voices: Sequence[str]
    default_voice: str
    settings: ConversionSettings
    presets: Presets = field(default_factory=Presets)


def read_requests(source: Path, rel: bytes, choices: Choices) -> list[Request]:
    """Decide voices and settings of the file `source`, dropped as `rel` below the inbox: a request for each voice.

    Raises:
        SidecarInvalid, RecipeInvalid: a settings file cannot be used; names the line.
        VoiceUnknown: the folder or a settings file names no voice of the library.
        VoiceNotChosen: nothing names a voice, and there is no default.
    """
    sidecar, recipe = read_sidecar(source), _recipe(rel, choices)
    choosing = next((preset for preset in (sidecar, recipe) if preset is not None and preset.voices), None)
    if choosing is not None:
        voices, chosen_by = _known_voices(choosing, choices.voices), choosing.name
    else:
        voices, chosen_by = _voice_of_place(rel, choices, recipe)
    return [_request(voice, chosen_by, (recipe, sidecar), choices) for voice in voices]


def read_request(source: Path, rel: bytes, choices: Choices) -> Request:
    """Decide voice and settings of a file for one job.

    Raises:
        as `read_requests`; RecipeInvalid: its recipe names several voices.
    """
    requests = read_requests(source, rel, choices)
    if len(requests) > 1:
        raise RecipeInvalid(
            f"{requests[0].chosen_by} names {len(requests)} voices now, and this job is one; drop the file again, so "
            "that each voice gets a job"
        )
    return requests[0]


def read_again(source: Path, rel: bytes, voice: str, choices: Choices) -> Request:
    """Read the settings file beside a source again, which may have been put right since the job was made.

    Args:
        voice: that of the job; empty if none could be chosen then. choices: with the settings of the job.

    Raises:
        as `read_request`.
    """
    if not voice:
        return read_request(source, rel, choices)
    sidecar = read_sidecar(source)
    if sidecar is not None and sidecar.voices:
        (voice,) = _known_voices(sidecar, choices.voices)
    return _request(voice, "", (sidecar,), replace(choices, presets=Presets()))


def choose_voice(rel: bytes, choices: Choices) -> str:
    """Return the voice that the path of a file names, or the default.

    Raises:
        VoiceUnknown, VoiceNotChosen: see `read_requests`.
    """
    folder, slash, _ = rel.partition(b"/")
    if slash:
        return _known(os.fsdecode(folder), choices.voices, choices.presets.recipe_names())
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
    return os.path.lexists(sidecar_of(source))


def output_rel(rel: bytes, settings: ConversionSettings, *, variant: str = "") -> bytes:
    """Return the path below the outbox: that below the inbox, with the suffix of the output format.

    Args:
        variant: the voice, where a file is rendered with several; it becomes part of the name.
    """
    suffix = OUTPUT_FORMATS[settings.output_format][0]
    name = os.fsencode(Path(os.fsdecode(rel)).with_suffix(suffix))
    return variant_name(name, variant) if variant else name


def _request(voice: str, chosen_by: str, stronger: Sequence[Preset | None], choices: Choices) -> Request:
    presets = tuple(preset for preset in (choices.presets.of_voice(voice), *stronger) if preset is not None)
    settings = choices.settings
    for preset in presets:
        settings = settings.with_changes(**preset.values)
    return Request(voice, settings, presets, chosen_by)


def _recipe(rel: bytes, choices: Choices) -> Preset | None:
    """Return the recipe that the first folder names; one goes before a voice of the same name."""
    folder, slash, _ = rel.partition(b"/")
    names, name = choices.presets.recipe_names() if slash else [], os.fsdecode(folder)
    meant = name if name in names or name in choices.voices else named(name, names)
    return choices.presets.recipe(meant) if meant is not None and meant in names else None


def _voice_of_place(rel: bytes, choices: Choices, recipe: Preset | None) -> tuple[list[str], str]:
    """Return the voice that the place of a file names; a recipe without one leaves it to the default."""
    is_in_folder = b"/" in rel and recipe is None
    voice = choose_voice(rel if is_in_folder else rel.rpartition(b"/")[2], choices)
    if is_in_folder:
        return [voice], "the folder"
    return [voice], "default_voice" if choices.default_voice else "the only voice"


def _known_voices(preset: Preset, voices: Sequence[str]) -> list[str]:
    try:
        found = [_known(name, voices) for name in preset.voices]
    except VoiceUnknown as e:
        raise VoiceUnknown(f"{preset.name}:{preset.voice_line}: {e}") from e
    if len(set(found)) < len(found):
        raise RecipeInvalid(f"{preset.name}:{preset.voice_line}: voice names {_listed(found)}; name each voice once")
    return found


def _known(name: str, voices: Sequence[str], recipes: Sequence[str] = ()) -> str:
    if (meant := named(name, voices)) is not None:
        return meant
    names = [*voices, *recipes]
    same = [v for v in names if folded(v) == folded(name)]
    near = same or difflib.get_close_matches(folded(name), [folded(v) for v in names], n=3, cutoff=0.5)
    close = [v for v in names if v in near or folded(v) in near]
    hint = f"did you mean {_listed(close)}?" if close else f"the library holds {_listed(voices) or 'no voice yet'};"
    raise VoiceUnknown(f"there is no voice {name!r}; {hint} put the voice into voices/ or use another folder")


def _listed(voices: Sequence[str], limit: int = 12) -> str:
    return ", ".join(voices[:limit]) + (", …" if len(voices) > limit else "")

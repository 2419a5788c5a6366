"""Effects on the finished signal, through Pedalboard (the extra `effects`): a chain in a line of text.

    compressor(threshold_db=-20, ratio=3), reverb(room_size=0.3, wet_level=0.2)

They run block by block with their state carried, which gives the same samples as the whole at once. What changes
lengths or reads files (pitch shift, plugins, impulse responses) is not among them. Pedalboard is under the GPL, which
is one more reason why it is never needed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rvc_batch.errors import ExtraMissing, SettingsInvalid

if TYPE_CHECKING:
    from rvc_batch.engine.types import F32

LIMIT_CHARS = 500  # the tags of the result must hold it
NO_EFFECTS = "none"
EXAMPLE = "compressor(threshold_db=-20, ratio=3), reverb(wet_level=0.2)"
INSTALL_EFFECTS = "pip install pedalboard, or install rvc-batch with its extra: pip install '.[effects]'"
_SHARE, _HERTZ, _DECIBELS = (0.0, 1.0), (20.0, 20_000.0), (-80.0, 40.0)
_EQUALISER = {"cutoff_frequency_hz": _HERTZ, "gain_db": _DECIBELS, "q": (0.1, 20.0)}
# name → Pedalboard's class, and the ranges of its parameters; what is left out has Pedalboard's default
EFFECTS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "reverb": ("Reverb", dict.fromkeys(("room_size", "damping", "wet_level", "dry_level", "width"), _SHARE)),
    "delay": ("Delay", {"delay_seconds": (0.0, 10.0), "feedback": (0.0, 0.95), "mix": _SHARE}),
    "chorus": (
        "Chorus",
        {"rate_hz": (0.0, 99.0), "depth": _SHARE, "centre_delay_ms": (1.0, 100.0), "feedback": (0.0, 0.95)}
        | {"mix": _SHARE},
    ),
    "compressor": (
        "Compressor",
        {"threshold_db": _DECIBELS, "ratio": (1.0, 100.0), "attack_ms": (0.0, 1e4), "release_ms": (0.0, 1e4)},
    ),
    "limiter": ("Limiter", {"threshold_db": _DECIBELS, "release_ms": (0.0, 1e4)}),
    "gain": ("Gain", {"gain_db": _DECIBELS}),
    "distortion": ("Distortion", {"drive_db": _DECIBELS}),
    "clipping": ("Clipping", {"threshold_db": _DECIBELS}),
    "bitcrush": ("Bitcrush", {"bit_depth": (1.0, 32.0)}),
    "highpass": ("HighpassFilter", {"cutoff_frequency_hz": _HERTZ}),
    "lowpass": ("LowpassFilter", {"cutoff_frequency_hz": _HERTZ}),
    "low_shelf": ("LowShelfFilter", _EQUALISER),
    "high_shelf": ("HighShelfFilter", _EQUALISER),
    "peak": ("PeakFilter", _EQUALISER),
}


@dataclass(frozen=True)
class Effect:
    """One link of the chain: a key of `EFFECTS`, and the parameters that are not at their default."""

    name: str
    parameters: tuple[tuple[str, float], ...]


def parse_effects(text: str) -> tuple[Effect, ...]:
    """Read a chain; "none" is the empty one.

    Raises:
        SettingsInvalid: it cannot be read, or an effect or parameter is not known or out of range.
    """
    if text == NO_EFFECTS:
        return ()
    if len(text) > LIMIT_CHARS:
        raise SettingsInvalid(f"effects has {len(text)} characters, expected {LIMIT_CHARS} at most")
    try:
        listed = ast.parse(f"[{text}]", mode="eval").body  # read as Python is written, never run
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise SettingsInvalid(f"effects is {text!r}, expected a chain such as {EXAMPLE}") from e
    links = listed.elts if isinstance(listed, ast.List) else []
    if not links:
        raise SettingsInvalid(f"effects is {text!r}, expected {NO_EFFECTS} or a chain such as {EXAMPLE}")
    return tuple(_effect(link) for link in links)


def _effect(link: ast.expr) -> Effect:
    if not isinstance(link, ast.Call) or not isinstance(link.func, ast.Name) or link.args:
        raise SettingsInvalid(f"effects has {ast.unparse(link)!r}, expected links like reverb(wet_level=0.2)")
    name = link.func.id
    if name not in EFFECTS:
        raise SettingsInvalid(f"effects has {name!r}, known: {', '.join(EFFECTS)}")
    ranges, parameters = EFFECTS[name][1], list[tuple[str, float]]()
    for keyword in link.keywords:
        if keyword.arg not in ranges:
            raise SettingsInvalid(f"effects: {name} has no {keyword.arg!r}, known: {', '.join(ranges)}")
        low, high = ranges[keyword.arg]
        try:
            value = ast.literal_eval(keyword.value)
            is_well = type(value) in (int, float) and low <= value <= high
        except (ValueError, TypeError):
            is_well = False
        if not is_well:
            shown = ast.unparse(keyword.value)
            raise SettingsInvalid(f"effects: {keyword.arg} of {name} is {shown}, expected {low:g} to {high:g}")
        parameters.append((keyword.arg, float(value)))
    return Effect(name, tuple(parameters))


def check_effects(text: str) -> None:
    """Make sure that a chain can be run, before the work.

    Raises:
        ExtraMissing: Pedalboard is not installed.
    """
    if text != NO_EFFECTS and importlib.util.find_spec("pedalboard") is None:
        raise ExtraMissing(f"effects need Pedalboard: {INSTALL_EFFECTS}")


class EffectChain:
    """A chain at work on one pass over a signal."""

    def __init__(self, effects: tuple[Effect, ...], sample_rate: int) -> None:
        pedalboard: Any = importlib.import_module("pedalboard")
        links = [getattr(pedalboard, EFFECTS[effect.name][0])(**dict(effect.parameters)) for effect in effects]
        self._board = pedalboard.Pedalboard(links)
        self._rate = sample_rate

    def apply(self, wave: F32) -> F32:
        """Return the next samples with the effects on them, [n] or [n, channels] as they came."""
        import numpy as np

        planes = np.ascontiguousarray(wave.reshape(len(wave), -1).T, np.float32)
        treated: F32 = self._board.process(planes, self._rate, reset=False).T.reshape(wave.shape)
        return treated

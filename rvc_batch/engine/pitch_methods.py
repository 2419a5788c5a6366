"""The methods that measure f0, as data. No numpy in here: settings are checked by processes that load as little as
they can.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvc_batch.errors import SettingsInvalid


@dataclass(frozen=True)
class PitchMethod:
    """One method.

    threshold: of voicing if none is chosen, in the method's own measure; None where it has none. source: whose
    parameters these are.
    """

    name: str
    threshold: float | None
    source: str


METHODS = {
    m.name: m
    for m in (
        PitchMethod("rmvpe", 0.03, "RVC infer/rmvpe.py @ 4338f12"),
        PitchMethod("fcpe", 0.006, "torchfcpe @ 0.0.4, as RVC infer/vc/pipeline.py @ 4338f12 calls it"),
        PitchMethod("crepe", 0.1, "RVC infer/vc/pipeline.py get_f0 @ 9f2f055, torchcrepe @ 0.0.24"),
        PitchMethod("crepe-tiny", 0.1, "as crepe, with the small network"),
        PitchMethod("harvest", None, "RVC infer/vc/pipeline.py get_f0 @ 9f2f055"),
        PitchMethod("pm", 0.6, "RVC infer/vc/pipeline.py get_f0 @ 9f2f055"),
    )
}


@dataclass(frozen=True)
class PitchChoice:
    """What measures f0: a valid `pitch_method`, and a threshold of voicing, 0 = that of each method."""

    method: str = "rmvpe"
    threshold: float = 0.0


def methods_named(name: str) -> tuple[PitchMethod, ...]:
    """Return the method of that name, or those that "a+b" and "a+b+c" join.

    Raises:
        SettingsInvalid: unknown, or one is named twice.
    """
    names = name.split("+")
    if not set(names) <= set(METHODS):
        raise SettingsInvalid(f"pitch_method is {name!r}, expected one of {', '.join(METHODS)}, or several joined by +")
    if len(set(names)) < len(names):
        raise SettingsInvalid(f"pitch_method is {name!r}, expected each method once")
    return tuple(METHODS[n] for n in names)


def check_threshold(methods: tuple[PitchMethod, ...], threshold: float) -> None:
    """Refuse a threshold (0 = none was chosen) that the methods have no use for.

    Raises:
        SettingsInvalid: the method decides on voicing without one, or there are several, each with its own measure.
    """
    if not threshold:
        return
    if len(methods) > 1:
        raise SettingsInvalid(
            f"pitch_threshold is {threshold:g}, but {len(methods)} methods are joined, each with its own; leave it at 0"
        )
    if methods[0].threshold is None:
        raise SettingsInvalid(
            f"pitch_threshold is {threshold:g}, but {methods[0].name} decides on voicing without one; leave it at 0"
        )

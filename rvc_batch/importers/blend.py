"""Blend two voices of the library into a new voice of the home. The sources are read in the helper process only."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from rvc_batch.errors import FolderGone, SettingsInvalid
from rvc_batch.importers.adopt import Adopted, adopt_voice
from rvc_batch.importers.index import inspect_index
from rvc_batch.importers.isolation import blend_isolated
from rvc_batch.importers.library import checked_name
from rvc_batch.importers.sources import CANONICAL
from rvc_batch.importers.store import ModelStore


def blend(store: ModelStore, one: str, other: str, *, weight: float, name: str, index: Path | None = None) -> Adopted:
    """Make the voice `name` = weight · one + (1 − weight) · other in the home, as a canonical checkpoint.

    Args:
        weight: share of the first voice, 0 to 1. index: the new voice's index; None for none.

    Raises:
        SettingsInvalid: weight or name cannot be used. HomeInvalid: the name is taken. VoiceUnknown: no such voice.
        ModelNotRvc: the voices differ in architecture; says in what. IndexInvalid: the index does not fit.
    """
    name = checked_name(name)
    if not (math.isfinite(weight) and 0 <= weight <= 1):
        raise SettingsInvalid(f"weight is {weight!r}, expected 0 to 1: the share of the first voice")
    if index is not None:
        inspect_index(index)
    sources = store.entry(one).weights(), store.entry(other).weights()
    try:
        store.cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store.cache_folder, suffix=".part") as scratch:
            target = Path(scratch) / f"{name}{CANONICAL}"
            blend_isolated(*sources, target, weight=weight)
            if index is not None:  # beside the voice and with its name, it belongs to it
                target.with_name(f"{name}.index").symlink_to(index.absolute())
            return adopt_voice(target, store)
    except OSError as e:
        raise FolderGone(f"cannot write to {store.cache_folder}: {e.strerror}; check the folder and its space") from e

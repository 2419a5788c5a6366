"""What a listing warns of: things about a voice that do not stop it, but that its owner did not mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rvc_batch.importers import library
from rvc_batch.importers.index import IndexInfo
from rvc_batch.importers.library import VoiceEntry, VoiceIndexes

NEIGHBOURS = 8  # how many vectors retrieval mixes
HEAD_BYTES = 65_536


def of_places(claims: Sequence[VoiceEntry]) -> list[str]:
    """Name the places in later roots that have the same name and are not used."""
    used = library.in_use(claims)
    return [f"{entry.place} has the same name and is not used" for entry in claims if entry not in used]


def of_indexes(indexes: VoiceIndexes) -> list[str]:
    """Say what is wrong with the choice of an index, if anything is."""
    match = indexes.match
    if match is not None:
        rivals = [str(rival) for rival in indexes.rivals if not _is_same(match, rival)]
        what = f"{', '.join(rivals)} matches as well as {match}; the newest is used, remove the others"
        return [what] if rivals else []
    if indexes.unclear:
        names = ", ".join(index.name for index in indexes.unclear)
        return [f"no index is used: none of {names} names the voice; keep one, or give it the voice's name"]
    return [trained_warning(index) for index in indexes.trained] or ["no index: retrieval has no effect"]


def of_size(index: Path, info: IndexInfo) -> list[str]:
    """Say that an index has too few vectors, if it has."""
    if not 0 < info.count < NEIGHBOURS:
        return []
    return [f"{index.name} holds {info.count} vectors, fewer than the {NEIGHBOURS} that retrieval mixes"]


def trained_warning(index: Path) -> str:
    """Return the sentence about an index that training leaves behind."""
    return f"{index.name} is a 'trained' index without vectors and is not used; the one to use is named 'added_…'"


def _is_same(one: Path, other: Path) -> bool:
    """Say whether two indexes are one: RVC puts a link or a copy of the one in `logs` into `assets/indices`."""
    if one.samefile(other):
        return True
    with one.open("rb") as a, other.open("rb") as b:
        return one.stat().st_size == other.stat().st_size and a.read(HEAD_BYTES) == b.read(HEAD_BYTES)

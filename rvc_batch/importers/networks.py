"""What a home has of the networks: the two that every conversion needs, and those of other pitch methods.

Names, sizes and the cache's records, no content.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvc_batch.importers.fetch import PUBLISHED
from rvc_batch.importers.pitch_packages import PITCH_SOURCES, find_pitch_source
from rvc_batch.importers.sources import folder_weights, source_files
from rvc_batch.importers.store import HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE, ModelStore


@dataclass(frozen=True)
class NetworkListing:
    """One of the networks.

    role: "content", "pitch", or "pitch (METHOD)" of another method · path: None if there is none · sha256: known once
    it is imported · error: of its import.
    """

    role: str
    path: Path | None
    size: int = 0
    sha256: str | None = None
    error: str | None = None

    @property
    def is_imported(self) -> bool:
        """Whether the model cache holds it as it is now."""
        return self.sha256 is not None

    @property
    def is_published(self) -> bool | None:
        """Whether it is the file that `models fetch` gets or the package ships; None while its hash is not known."""
        published = {file.sha256 for file in PUBLISHED} | {source.sha256 for source in PITCH_SOURCES.values()}
        return None if self.sha256 is None else self.sha256 in published


def content_network(store: ModelStore) -> Path | None:
    """Return where the content network lies: a file, or a Hugging Face folder; None if there is none."""
    file, folder = store.models / HUBERT_FILE, store.models / HUBERT_FOLDER
    if file.is_file():
        return file
    return folder if folder_weights(folder) is not None else None


def list_networks(store: ModelStore) -> list[NetworkListing]:
    """Describe content and pitch network, and those of other pitch methods that are there.

    Raises:
        ModelMissing: one was there and is gone again.
    """
    pitch = store.models / RMVPE_FILE
    others = ((method, find_pitch_source(method, store.models)) for method in PITCH_SOURCES)
    return [
        _describe(store, "content", content_network(store)),
        _describe(store, "pitch", pitch if pitch.is_file() else None),
        *(_describe(store, f"pitch ({method})", path) for method, path in others if path is not None),
    ]


def _describe(store: ModelStore, role: str, path: Path | None) -> NetworkListing:
    if path is None:
        return NetworkListing(role, None)
    found = store.cache.find(path)
    size = sum(part.stat().st_size for part in source_files(path))
    return NetworkListing(role, path, size, found.sha256 if found else None, store.cache.known_error(path))

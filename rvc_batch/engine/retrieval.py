"""FeatureIndex: nearest stored content features of the voice, as in the original.

faiss IVF-Flat with the file's own nprobe; weights are the squared inverse of the squared distances of eight
neighbours. The one deliberate difference: a query equal to a stored vector takes that vector, where the original
divides by zero and yields NaN. Source: RVC infer/vc/pipeline.py @ 4338f12.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rvc_batch.engine.provenance import digest
from rvc_batch.engine.types import F32, ContentFeatures
from rvc_batch.errors import IndexInvalid

N_NEIGHBOURS = 8
BATCH_FRAMES = 512  # bounds the [frames, 8, D] block of neighbours


class FeatureIndex:
    """A retrieval index kept in memory; one thread, so that no second OpenMP runtime wakes up."""

    def __init__(self, path: Path) -> None:
        """Read a faiss file.

        Raises:
            IndexInvalid: not readable as a faiss index, or without vectors.
        """
        import faiss

        faiss.omp_set_num_threads(1)
        self.path = path
        try:
            self._index: Any = faiss.read_index(str(path))
        except RuntimeError as e:
            raise IndexInvalid(f"{path} cannot be read as a faiss index: {str(e).splitlines()[-1]}") from e
        if self._index.ntotal == 0:
            raise IndexInvalid(f"{path} holds no vectors; it is the 'trained' file of its pair, use the 'added' one")
        self.sha256 = digest(path)

    @property
    def dim(self) -> int:
        """Width of the stored vectors."""
        return int(self._index.d)

    @property
    def count(self) -> int:
        """Number of stored vectors."""
        return int(self._index.ntotal)

    def blend(self, features: ContentFeatures, rate: float) -> ContentFeatures:
        """Return rate · retrieved + (1 − rate) · features.

        Raises:
            IndexInvalid: the index has another width than the features.
        """
        if features.dim != self.dim:
            raise IndexInvalid(
                f"{self.path} holds {self.dim}-wide vectors but the voice uses {features.dim}: it belongs to another "
                "version (v1 = 256, v2 = 768); remove it or replace it"
            )
        rate32 = np.float32(rate)
        pieces = [
            self._retrieve(features.data[at : at + BATCH_FRAMES]) for at in range(0, features.frames, BATCH_FRAMES)
        ]
        retrieved = np.concatenate(pieces) if pieces else features.data
        return ContentFeatures(retrieved * rate32 + features.data * (1 - rate32))

    def _retrieve(self, query: F32) -> F32:
        squared, ids, vectors = self._index.search_and_reconstruct(np.ascontiguousarray(query), N_NEIGHBOURS)
        is_found = ids >= 0
        is_exact = is_found & (squared <= 0)
        inverse = np.where(is_found, 1.0 / np.where(squared > 0, squared, 1.0), 0.0).astype(np.float32)
        weight = np.square(inverse)
        has_exact = is_exact.any(axis=1, keepdims=True)
        weight = np.where(has_exact, is_exact, weight)
        weight = weight / weight.sum(axis=1, keepdims=True)
        # a missing neighbour (id −1) comes back as NaN-filled memory: zero it, its weight alone does not
        vectors = np.where(is_found[:, :, None], vectors, 0.0)
        retrieved: F32 = np.einsum("tk,tkd->td", weight, vectors).astype(np.float32)
        return retrieved

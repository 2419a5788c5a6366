"""Retrieval: weights, exact hits, missing neighbours, and what is refused."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from rvc_batch.engine.features import align, protect
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.types import ContentFeatures, PitchTrack
from rvc_batch.errors import IndexInvalid


def write_index(path: Path, vectors: np.ndarray, lists: int = 1) -> Path:
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat")
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))
    return path


def features(*rows: list[float]) -> ContentFeatures:
    return ContentFeatures(np.array(rows, np.float32))


def test_weights_are_the_inverse_fourth_power_of_distance(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    index = FeatureIndex(write_index(tmp_path / "a.index", vectors))
    query = np.array([0.3, -0.2, 0.1, 0.9], np.float32)
    distance = np.linalg.norm(vectors - query, axis=1)
    nearest = np.argsort(distance)[:8]
    weight = distance[nearest] ** -4.0
    expected = (weight[:, None] * vectors[nearest]).sum(0) / weight.sum()
    found = index.blend(features(query.tolist()), 1.0).data[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    half = index.blend(features(query.tolist()), 0.5).data[0]
    np.testing.assert_allclose(half, (expected + query) / 2, rtol=1e-4)


def test_a_query_equal_to_a_stored_vector_takes_it(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((20, 4)).astype(np.float32)
    index = FeatureIndex(write_index(tmp_path / "a.index", vectors))
    np.testing.assert_array_equal(index.blend(ContentFeatures(vectors[7:8]), 1.0).data, vectors[7:8])


@pytest.mark.filterwarnings("ignore")
def test_a_list_with_fewer_than_eight_vectors_uses_what_there_is(tmp_path: Path) -> None:
    vectors = np.eye(3, dtype=np.float32)
    index = FeatureIndex(write_index(tmp_path / "a.index", vectors))
    found = index.blend(features([0.2, 0.2, 0.2]), 1.0).data
    np.testing.assert_allclose(found, [[1 / 3, 1 / 3, 1 / 3]], rtol=1e-5)


def test_many_frames_in_batches_equal_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    index = FeatureIndex(write_index(tmp_path / "a.index", rng.standard_normal((300, 4)).astype(np.float32), 4))
    query = rng.standard_normal((1_100, 4)).astype(np.float32)
    whole = index.blend(ContentFeatures(query), 0.75).data
    single = np.concatenate([index.blend(ContentFeatures(q[None]), 0.75).data for q in query[500:530]])
    np.testing.assert_allclose(whole[500:530], single, rtol=1e-6)


def test_wrong_width_empty_and_damaged_indexes_are_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    index = FeatureIndex(write_index(tmp_path / "a.index", rng.standard_normal((50, 4)).astype(np.float32)))
    with pytest.raises(IndexInvalid, match="4-wide vectors but the voice uses 8"):
        index.blend(ContentFeatures(np.zeros((2, 8), np.float32)), 0.5)
    empty = faiss.index_factory(4, "IVF1,Flat")
    empty.train(rng.standard_normal((50, 4)).astype(np.float32))
    faiss.write_index(empty, str(tmp_path / "trained.index"))
    with pytest.raises(IndexInvalid, match="holds no vectors"):
        FeatureIndex(tmp_path / "trained.index")
    (tmp_path / "junk.index").write_bytes(b"not an index at all")
    with pytest.raises(IndexInvalid, match="cannot be read"):
        FeatureIndex(tmp_path / "junk.index")


def test_protect_gives_unvoiced_frames_their_own_features_back() -> None:
    mixed, raw = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    pitch = PitchTrack(np.array([100, 0], np.float32))
    np.testing.assert_allclose(protect(mixed, raw, pitch, 0.25)[:, 0], [1.0, 0.25])
    assert protect(mixed, raw, pitch, 0.5) is mixed


def test_alignment_doubles_frames_and_cuts() -> None:
    content = features([1.0], [2.0])
    np.testing.assert_array_equal(align(content, content, None, n_frames=3, share=0.3)[:, 0], [1, 1, 2])

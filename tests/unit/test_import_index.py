"""Index files: what they say of themselves, and which voice they belong to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvc_batch.errors import IndexInvalid
from rvc_batch.importers.index import IndexInfo, check_index, inspect_index, match_index

DIM, LISTS = 12, 9


def write_index(path: Path, *, count: int, dim: int = DIM, lists: int = LISTS, filled: int = LISTS) -> Path:
    """Write an IVF-Flat index whose vectors lie in the first `filled` lists."""
    generator = np.random.default_rng(3)
    centroids = generator.standard_normal((lists, dim)).astype(np.float32)
    index = faiss.index_factory(dim, f"IVF{lists},Flat")
    faiss.downcast_index(faiss.extract_index_ivf(index).quantizer).add(centroids)
    faiss.extract_index_ivf(index).is_trained = index.is_trained = True
    if count:
        index.add(centroids[np.arange(count) % filled] + 1e-3)
    faiss.write_index(index, str(path))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_index(tmp_path_factory.mktemp("index") / "a.index", count=20).read_bytes()


@pytest.mark.parametrize(("count", "filled"), [(90, LISTS), (40, 2), (1, 1), (0, 1)])
def test_structure_is_read_from_dense_and_sparse_files(tmp_path: Path, count: int, filled: int) -> None:
    path = write_index(tmp_path / "a.index", count=count, filled=filled)
    assert (b"sprs" in path.read_bytes()) == (filled <= LISTS // 2)  # faiss chooses the form
    assert inspect_index(path) == IndexInfo(dim=DIM, count=count, n_lists=LISTS, size=path.stat().st_size)


def test_generated_indexes_are_read(checkpoints: Callable[[str], Path]) -> None:
    folder = checkpoints("tiny") / "index"
    found = {p.name: inspect_index(p) for p in folder.iterdir()}
    assert {(i.dim, i.count, i.n_lists) for i in found.values()} == {(48, 1200, 30), (256, 600, 15)}


def test_wrong_width_names_both_and_empty_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(IndexInvalid, match=r"12 features per vector, but voice 'amy' needs 768"):
        check_index(write_index(tmp_path / "a.index", count=5), 768, "amy")
    with pytest.raises(IndexInvalid, match=r"holds no vectors.*use the one named 'added_"):
        check_index(write_index(tmp_path / "b.index", count=0), DIM, "amy")


def test_other_index_types_are_refused(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((300, 16)).astype(np.float32)
    for factory in ("Flat", "IVF4,PQ4x4", "HNSW8"):
        index = faiss.index_factory(16, factory)
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "x.index"))
        with pytest.raises(IndexInvalid, match="expected b'IwFl'"):
            inspect_index(tmp_path / "x.index")
    inner = faiss.index_factory(16, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    inner.train(vectors)
    faiss.write_index(inner, str(tmp_path / "ip.index"))
    with pytest.raises(IndexInvalid, match="metric 0, expected 1"):
        inspect_index(tmp_path / "ip.index")


def test_missing_file_is_an_index_error(tmp_path: Path) -> None:
    with pytest.raises(IndexInvalid, match="cannot be read"):
        inspect_index(tmp_path / "none.index")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_truncation_is_noticed(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(whole) - 1))
    (tmp_path / "cut.index").write_bytes(whole[:cut])
    with pytest.raises(IndexInvalid):
        inspect_index(tmp_path / "cut.index")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_altered_headers_give_only_index_errors(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    content = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, 120), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "b.index").write_bytes(content)
    try:
        info = inspect_index(tmp_path / "b.index")
    except IndexInvalid:
        return
    assert (info.dim, info.count, info.n_lists) == (DIM, 20, LISTS)  # what changed was not structure


# which index belongs to which voice


@pytest.mark.parametrize(
    ("voice", "index"),
    [
        ("amy", "amy.index"),
        ("Amy", "amy.INDEX"),
        ("amy", "added_IVF210_Flat_nprobe_1_amy_v2.index"),
        ("amy_e200_s4000", "added_IVF210_Flat_nprobe_1_amy_v2.index"),  # a save of RVC during training
        ("amy_200e_4000s", "amy.index"),  # a save of Applio
        ("amy_200e_4000s_best_epoch", "added_IVF210_Flat_nprobe_1_amy_v1.index"),
        ("amy", "amy_added_IVF210_Flat_nprobe_1_amy_v2.index"),  # RVC's link in assets/indices
        ("amy", "amy_added_IVF210_Flat_nprobe_1_v2.index"),
        ("amy_v2", "added_IVF210_Flat_nprobe_1_amy_v2_v2.index"),
        ("amy", "added_IVF210_Flat_nprobe_1_amy_sings_v2.index"),  # contained
        ("amy sings", "added_IVF210_Flat_nprobe_1_amy_v2.index"),
    ],
)
def test_names_that_belong_together(tmp_path: Path, voice: str, index: str) -> None:
    indexes = [tmp_path / index, tmp_path / "added_IVF9_Flat_nprobe_1_zoe_v2.index"]
    for path in indexes:
        path.touch()
    assert match_index([voice], indexes, neighbours=["zoe"], own_folder=False) == tmp_path / index


@pytest.mark.parametrize(
    ("voice", "index"),
    [
        ("amy", "trained_IVF210_Flat_nprobe_1_amy_v2.index"),
        ("amy", "amy_trained_IVF210_Flat_nprobe_1_amy_v2.index"),
        ("amy", "added_IVF210_Flat_nprobe_1_zoe_v2.index"),
        ("amy", "zoe.index"),
        ("my", "added_IVF210_Flat_nprobe_1_amy_v2.index"),  # whole words only
    ],
)
def test_names_that_do_not_belong_together(tmp_path: Path, voice: str, index: str) -> None:
    (tmp_path / index).touch()
    assert match_index([voice], [tmp_path / index], neighbours=[], own_folder=False) is None


def test_an_index_is_not_taken_from_the_voice_it_names(tmp_path: Path) -> None:
    index = tmp_path / "added_IVF210_Flat_nprobe_1_amy_sings_v2.index"
    index.touch()
    assert match_index(["amy"], [index], neighbours=["amy_sings"], own_folder=False) is None
    assert match_index(["amy_sings"], [index], neighbours=["amy"], own_folder=False) == index


def test_the_only_index_belongs_to_the_only_voice_of_its_folder(tmp_path: Path) -> None:
    (other := tmp_path / "whatever.index").touch()
    (nameless := tmp_path / "added_IVF210_Flat_nprobe_1_v2.index").touch()
    assert match_index(["model", "Amy"], [other], neighbours=[], own_folder=True) == other
    assert match_index(["model"], [other], neighbours=[], own_folder=False) is None
    assert match_index(["model"], [nameless], neighbours=[], own_folder=False) == nameless
    assert match_index(["model"], [nameless], neighbours=["zoe"], own_folder=False) is None
    assert match_index(["model", "Amy"], [other, nameless], neighbours=[], own_folder=True) is None


def test_better_matches_win_then_newer_ones(tmp_path: Path) -> None:
    names = ["amy.index", "added_IVF1_Flat_nprobe_1_amy_v2.index", "added_IVF2_Flat_nprobe_1_amy_v2.index"]
    paths = [tmp_path / name for name in names]
    for age, path in enumerate(paths):
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert match_index(["amy"], paths, neighbours=[], own_folder=False) == paths[0]
    assert match_index(["amy"], paths[1:], neighbours=[], own_folder=False) == paths[1]
    os.utime(paths[2], (2000, 2000))
    assert match_index(["amy"], paths[1:], neighbours=[], own_folder=False) == paths[2]

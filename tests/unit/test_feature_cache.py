"""The feature cache: what it gives back, what it never gives back, and how it stays small."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rvc_batch.engine.feature_cache import FREE_BYTES, FeatureCache, feature_key

VALUES = np.arange(600, dtype=np.float32).reshape(20, 30)
ENTRY = VALUES.nbytes + 400  # bytes on disk, with the headers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


def grow_old(folder: Path, seconds: float = 1000.0) -> None:
    """Make all entries look as if they were used long ago."""
    for path in folder.iterdir():
        past = path.stat().st_mtime - seconds
        os.utime(path, (past, past))


def test_an_array_comes_back_to_the_bit_in_another_life(folder: Path) -> None:
    FeatureCache(folder, 10**6).keep("k", VALUES)
    found = FeatureCache(folder, 10**6).get("k")
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES)
    assert FeatureCache(folder, 10**6).get("other") is None


@pytest.mark.parametrize("at", [0, 200, 700, 2000, -30])
def test_one_wrong_byte_is_a_miss_and_the_entry_goes(folder: Path, at: int) -> None:
    cache = FeatureCache(folder, 10**6)
    cache.keep("k", VALUES)
    path = folder / "k.npz"
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 0x10
    path.write_bytes(damaged)
    assert cache.get("k") is None
    assert list(folder.iterdir()) == []


def test_half_an_entry_is_a_miss(folder: Path) -> None:
    cache = FeatureCache(folder, 10**6)
    cache.keep("k", VALUES)
    os.truncate(folder / "k.npz", 900)
    assert cache.get("k") is None


def test_what_was_not_used_for_longest_goes_first(folder: Path) -> None:
    cache = FeatureCache(folder, 3 * ENTRY)
    for number, key in enumerate("abc"):
        cache.keep(key, VALUES)
        grow_old(folder, 1000.0 - number)
    assert cache.get("a") is not None  # used now
    cache.begin()
    grow_old(folder, 10.0)
    cache.keep("d", VALUES)
    assert sorted(p.stem for p in folder.iterdir()) == ["a", "c", "d"]
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 3 * ENTRY


def test_a_conversion_never_pushes_out_its_own_beginning(folder: Path) -> None:
    FeatureCache(folder, 10**6).keep("old", VALUES)
    grow_old(folder)
    cache = FeatureCache(folder, 2 * ENTRY + 100)
    cache.begin()
    for key in "abcd":
        cache.keep(key, VALUES)
    assert sorted(p.stem for p in folder.iterdir()) == ["a", "b"]


def test_what_a_killed_process_left_counts_and_goes_like_all_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "k.unfinished").write_bytes(bytes(2 * ENTRY))
    grow_old(folder)
    cache = FeatureCache(folder, 2 * ENTRY)
    assert cache.get("k") is None
    cache.keep("a", VALUES)
    assert [p.name for p in folder.iterdir()] == ["a.npz"]


def test_an_entry_larger_than_the_bound_is_not_kept(folder: Path) -> None:
    FeatureCache(folder, VALUES.nbytes - 1).keep("k", VALUES)
    assert list(folder.iterdir()) == []


def test_the_disk_of_others_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(folder, 10**6)
    cache.keep("a", VALUES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=FREE_BYTES))
    cache.keep("b", VALUES)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("step", ["savez", "load"])
def test_a_broken_disk_costs_an_entry_and_no_conversion(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(folder, 10**6)
    cache.keep("k", VALUES)

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, step, broken)
    cache.keep("l", VALUES)
    assert (cache.get("l"), cache.get("k") is None) == (None, step == "load")
    assert "No space left" in caplog.text
    assert not list(folder.glob("*.unfinished"))


def test_the_key_tells_all_samples_and_all_parts_apart_but_not_the_blocks() -> None:
    wave = np.random.default_rng(0).standard_normal(5000)
    key = feature_key(("f0", 1), [wave])
    assert feature_key(("f0", 1), [wave[:1234], wave[1234:]]) == key
    other = wave.copy()
    other[-1] = np.nextafter(other[-1], 1.0)
    changed = [
        feature_key(("f0", 1), [other]),
        feature_key(("f0", 1), [wave[:-1]]),
        feature_key(("f0", 2), [wave]),
        feature_key(("f0", 1, ""), [wave]),
        feature_key(("f01",), [wave]),
        feature_key(("f0", 1), [wave.astype(np.float32)]),
    ]
    assert len({key, *changed}) == len(changed) + 1

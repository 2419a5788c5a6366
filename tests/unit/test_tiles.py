"""Tiles cover what they must, with the halo they need, in one shape."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rvc_batch.engine.tiling import Halo, tiles


@given(
    total=st.integers(1, 500),
    size=st.integers(1, 120),
    before=st.integers(0, 40),
    after=st.integers(0, 40),
    data=st.data(),
)
def test_tiles_cover_the_range_once_with_their_halo_in_one_shape(
    total: int, size: int, before: int, after: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    found = list(tiles(start, stop, total, size, Halo(before, after)))
    assert [t.keep_first for t in found] == list(range(start, stop, size))
    assert found[-1].keep_last == stop
    for tile, following in pairwise(found):
        assert tile.keep_last == following.keep_first
    for tile in found:
        assert tile.first <= max(tile.keep_first - before, 0)
        assert tile.last >= min(tile.keep_last + after, total)
        assert 0 <= tile.first < tile.last <= total
    if total >= size + before + after:
        assert {t.last - t.first for t in found} == {size + before + after}


def test_windows_of_the_pitch_network_stay_aligned() -> None:
    for tile in tiles(0, 32 * 1_000, 32 * 1_000, 32 * 100, Halo(32 * 7, 32 * 9)):
        assert tile.first % 32 == tile.last % 32 == 0

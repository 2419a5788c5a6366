"""Tiles cover what they must, with the halo they need, in one shape."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rvc_batch.engine.tiling import Halo, few_lengths, synthesis_tiles, tiles


@settings(deadline=None)
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


@settings(deadline=None)
@given(
    context=st.integers(0, 120),
    kept=st.integers(1, 5_200),
    size=st.integers(16, 4_096),
    before=st.integers(0, 40),
    after=st.integers(0, 40),
)
def test_synthesis_tiles_keep_everything_once_and_have_their_context(
    context: int, kept: int, size: int, before: int, after: int
) -> None:
    total = kept + 2 * context
    found = list(synthesis_tiles(context, context + kept, total, size, Halo(before, after)))
    assert found[0].keep_first == context
    assert found[-1].keep_last == context + kept
    for tile, following in pairwise(found):
        assert tile.keep_last == following.keep_first
    assert len({t.last - t.first for t in found}) == 1
    for tile in found:
        assert 0 < tile.keep_last - tile.keep_first <= size
        assert 0 <= tile.first <= max(tile.keep_first - before, 0)
        assert tile.last >= min(tile.keep_last + after, total)
        assert tile.last <= few_lengths(total)
        if tile.last > total:  # frames that are not there must be nobody's context
            assert tile.keep_last + after <= total
        if context >= after:
            assert tile.last - tile.first == few_lengths(tile.last - tile.first)


def test_all_segments_and_files_share_few_shapes() -> None:
    shapes = set()
    for kept in range(1, 5_200):
        for tile in synthesis_tiles(100, 100 + kept, kept + 200, 1_000, Halo(36, 36)):
            shapes.add(tile.last - tile.first)
    assert len(shapes) <= 36
    assert max(shapes) <= few_lengths(1_072)

"""A memory limit makes tiles smaller and says when it cannot be kept."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine.converter import Converter
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.memory import (
    PITCH_TILE_RANGE,
    TILE_RANGE,
    Appetite,
    Needs,
    longest_segment,
    parse_size,
    plan_memory,
)
from rvc_batch.engine.network_config import HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.resident_size import ResidentPeak, resident_size
from rvc_batch.engine.segments import plan_segments
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import few_lengths
from rvc_batch.errors import SettingsInvalid
from tests.engine_fakes import NumpyBackend, fake_voice

PUBLISHED = (
    HubertConfig((512,) * 7, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 768, 3072, 12, 12, 128, 16, 256),
    RmvpeConfig(16, 5, 4, 4, 256, 1, 128, 360),
    SynthesizerConfig(
        version="v2",
        feature_dim=768,
        has_f0=True,
        sample_rate=40_000,
        inter_channels=192,
        hidden_channels=192,
        filter_channels=768,
        n_heads=2,
        n_layers=6,
        kernel_size=3,
        resblock_kernels=(3, 7, 11),
        resblock_dilations=((1, 3, 5),) * 3,
        upsample_rates=(10, 10, 2, 2),
        upsample_initial_channels=512,
        upsample_kernels=(16, 16, 4, 4),
        n_speakers=109,
        gin_channels=256,
    ),
)
APPETITE = Appetite(process=200 << 20, stages=96 << 20, scores=1, content=4, pitch=20, prior=20, decode=20)
NEEDS = Needs.of(APPETITE, *PUBLISHED, loaded=850 << 20, rules=RVC_2023)


def test_sizes_shrink_with_the_limit_and_what_they_need_stays_below_it() -> None:
    least = NEEDS.least()
    plans = [plan_memory(limit, NEEDS) for limit in range(least, least + (4 << 30), 128 << 20)]
    tiles = [p.sizes.tile_frames for p in plans]
    assert tiles == sorted(tiles)
    assert len(set(tiles)) > 5
    pitch_tiles = [p.sizes.pitch_tile_frames for p in plans]
    assert pitch_tiles == sorted(pitch_tiles)
    assert {n % 32 for n in pitch_tiles} == {0}
    for plan, limit in zip(plans, range(least, least + (4 << 30), 128 << 20), strict=True):
        largest = max(NEEDS.whole(), NEEDS.tile(plan.sizes.tile_frames), NEEDS.pitch_tile(plan.sizes.pitch_tile_frames))
        assert NEEDS.fixed() + largest + plan.cache_bytes <= limit
    assert plans[-1].sizes.tile_frames <= TILE_RANGE[1]
    assert plans[-1].sizes.pitch_tile_frames <= PITCH_TILE_RANGE[1]


def test_a_limit_too_small_says_the_least_that_works() -> None:
    least = NEEDS.least()
    plan_memory(least, NEEDS)
    with pytest.raises(SettingsInvalid, match=rf"these networks need {least / 1e9:.2f} GB at least"):
        plan_memory(least - 1, NEEDS)


def test_without_a_limit_narrow_networks_get_longer_tiles() -> None:
    narrow = Needs.of(
        APPETITE,
        NumpyBackend.content_config,
        NumpyBackend.pitch_config,
        fake_voice().config,
        loaded=0,
        rules=RVC_2023,
    )
    assert plan_memory(None, narrow).sizes.tile_frames == TILE_RANGE[1]
    assert plan_memory(None, NEEDS).sizes.tile_frames < TILE_RANGE[1]


def test_no_segment_is_longer_than_the_longest() -> None:
    earliest, latest = RVC_2023.centre - RVC_2023.query, 2 * RVC_2023.centre + RVC_2023.query - 1
    between = plan_segments([earliest, latest], 10**8, RVC_2023, exact=True)[1]
    (uncut,) = plan_segments([], RVC_2023.longest - 161, RVC_2023, exact=True)
    assert uncut.samples < between.samples <= longest_segment(RVC_2023) < between.samples + 1_000


@pytest.mark.parametrize(
    ("text", "size"), [("2 GB", 2 * 10**9), ("1500MB", 1_500 * 10**6), ("1.5 GiB", 3 << 29), ("512 mib", 512 << 20)]
)
def test_sizes_are_read_in_the_usual_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "2 TB", "-1 GB", "0 GB", "two GB", "1e3 MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"memory_limit is .*, expected a size such as '1500 MB' or '2 GB'"):
        parse_size(text)


def test_a_converter_keeps_to_its_limit_and_gives_the_same_audio(tmp_path: Path) -> None:
    sf.write(tmp_path / "in.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 16_000 * 50), 16_000, "FLOAT")
    settings = ConversionSettings(index_rate=0.0, output_format="wav32f")
    heard, shapes = [], []
    for limit in (None, "600 MB"):
        backend = NumpyBackend()
        converter = Converter(backend, scratch=tmp_path, memory_limit=parse_size(limit) if limit else None)
        converter.convert(tmp_path / "in.wav", tmp_path / "out.wav", voice=fake_voice(), settings=settings)
        heard.append(sf.read(tmp_path / "out.wav", dtype="float32")[0])
        shapes.append(max(backend.decoded))
    np.testing.assert_array_equal(*heard)
    assert shapes[1] < shapes[0] / 2
    assert backend.limited[1] == 1
    with pytest.raises(SettingsInvalid, match=r"memory_limit is 0\.10 GB, but these networks need"):
        Converter(backend, scratch=tmp_path, memory_limit=10**8).convert(
            tmp_path / "in.wav", tmp_path / "out.wav", voice=fake_voice(), settings=settings
        )


def test_the_peak_of_a_stretch_forgets_what_came_before() -> None:
    # pages of its own: a large array may be carved out of what the heap of a long run already holds
    large = mmap.mmap(-1, 200 << 20)
    before = resident_size()
    for page in range(0, len(large), mmap.PAGESIZE):
        large[page] = 1
    peak = ResidentPeak()
    assert peak.peak() >= before + (190 << 20)
    large.close()
    assert ResidentPeak().peak() < before + (100 << 20)


def test_lengths_are_few_and_never_much_longer_than_asked() -> None:
    found = {n: few_lengths(n) for n in range(1, 5_300)}
    assert all(n <= length <= max(n + 31, n * 17 / 16 + 1) for n, length in found.items())
    assert len(set(found.values())) < 75

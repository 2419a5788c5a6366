"""Conversions of one recording share what the networks say of it, and nothing of a result depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine.converter import Converter
from rvc_batch.engine.dialect import RVC_2023, Dialect, MelPadding
from rvc_batch.engine.feature_cache import FeatureCache
from rvc_batch.engine.precision import Precision
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import WorkSizes
from rvc_batch.engine.types import F32, ConversionReport
from tests.engine_fakes import NumpyBackend, fake_voice

SETTINGS = ConversionSettings(index_rate=0.0, output_format="wav32f")
SEGMENTS = 2
ALL = {"f0": 1, "content": SEGMENTS}


class CountingBackend(NumpyBackend):
    """Counts what it is asked; its answers differ by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.contents = self.pitches = 0

    def content(self, wave: F32, *, layer: int, project: bool) -> F32:
        self.contents += 1
        return super().content(wave, layer=layer, project=project) + np.float32(layer)

    def pitch_salience(self, wave: F32, *, padding: MelPadding) -> F32:
        self.pitches += 1
        return super().pitch_salience(wave, padding=padding)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write a recording that is rendered in two segments."""
    time = np.arange(60 * 8_000) / 8_000
    wave = 0.3 * np.sin(2 * np.pi * 200 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * time))
    sf.write(tmp_path / "in.wav", wave, 8_000, "FLOAT", format="W64")
    return tmp_path / "in.wav"


def render(
    source: Path, cache: FeatureCache | None, settings: ConversionSettings = SETTINGS, **options: object
) -> tuple[bytes, ConversionReport, CountingBackend]:
    backend = options.pop("backend", None) or CountingBackend()
    assert isinstance(backend, CountingBackend)
    voice, rules = options.pop("voice", fake_voice()), options.pop("rules", None)
    converter = Converter(
        backend,  # type: ignore[arg-type]
        scratch=source.parent / "scratch",
        features=cache,
        sizes=options.pop("sizes", None),  # type: ignore[arg-type]
    )
    target = source.with_name("out.wav")
    report = converter.convert(source, target, voice=voice, settings=settings, rules=rules)  # type: ignore[arg-type]
    return target.read_bytes(), report, backend


@pytest.fixture
def cache(source: Path) -> FeatureCache:
    """Return a cache that has seen one conversion."""
    cache = FeatureCache(source.parent / "features", 10**9)
    _, report, backend = render(source, cache)
    assert (report.segments, report.reused, backend.contents) == (SEGMENTS, {}, SEGMENTS)
    return cache


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        SETTINGS.with_changes(transpose=7.0, protect=0.1, seed=3),
        SETTINGS.with_changes(autotune=0.5, f0_smoothing=3, loudness_lufs=-20.0, rms_mix_rate=1.0),
    ],
)
def test_another_voice_or_setting_asks_the_networks_nothing_and_gets_the_same_bytes(
    source: Path, cache: FeatureCache, settings: ConversionSettings
) -> None:
    voice = replace(fake_voice(), name="another", sha256="1" * 64)
    alone, report, _ = render(source, None, settings, voice=voice)
    assert report.reused == {}
    shared, report, backend = render(source, cache, settings, voice=voice)
    assert (report.reused, backend.contents, backend.pitches) == (ALL, 0, 0)
    assert shared == alone


def changed(**attributes: object) -> CountingBackend:
    backend = CountingBackend()
    for name, value in attributes.items():
        setattr(backend, name, value)
    return backend


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"backend": lambda: changed(name="other")}, {}),
        ({"backend": lambda: changed(device="gpu")}, {}),
        ({"backend": lambda: changed(networks_sha256="1")}, {}),
        ({"backend": lambda: changed(precision=Precision("float16"))}, {}),
        ({"sizes": lambda: WorkSizes(pitch_tile_frames=4_096)}, {"content": SEGMENTS}),
        ({"voice": lambda: as_v1()}, {"f0": 1}),
        ({"rules": lambda: other_rules()}, {"content": SEGMENTS}),
    ],
    ids=["name", "device", "networks", "precision", "pitch tiles", "layer", "rules"],
)
def test_nothing_of_other_networks_rules_or_sizes_is_taken(
    source: Path, cache: FeatureCache, options: dict[str, Callable[[], object]], expected: dict[str, int]
) -> None:
    _, report, _ = render(source, cache, **{name: make() for name, make in options.items()})
    assert report.reused == expected


@pytest.mark.parametrize("settings", [SETTINGS.with_changes(pitch_threshold=0.2)])
def test_f0_of_other_choices_is_measured_anew(source: Path, cache: FeatureCache, settings: ConversionSettings) -> None:
    _, report, _ = render(source, cache, settings)
    assert report.reused == {"content": SEGMENTS}


def test_the_layer_of_another_dialect_is_another_one(source: Path, cache: FeatureCache) -> None:
    _, first, _ = render(source, cache, voice=as_v1())
    _, report, _ = render(source, cache, voice=as_v1(), rules=replace(RVC_2023, v1_layer=12))
    assert (first.reused, report.reused) == ({"f0": 1}, {})


def test_another_recording_is_another_one(source: Path, cache: FeatureCache) -> None:
    wave, rate = sf.read(source)
    wave[-1] += 1e-3
    sf.write(source, wave, rate, "FLOAT", format="W64")
    _, report, _ = render(source, cache)
    assert "f0" not in report.reused


def test_a_damaged_cache_changes_no_byte(source: Path, cache: FeatureCache) -> None:
    alone, _, _ = render(source, None)
    for path in (source.parent / "features").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    shared, report, _ = render(source, cache)
    assert (shared, report.reused) == (alone, {})


def as_v1() -> object:
    voice = fake_voice()
    return replace(voice, config=replace(voice.config, version="v1"))


def other_rules() -> Dialect:
    return replace(RVC_2023, mel_padding=MelPadding.REFLECT)

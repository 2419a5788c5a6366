"""Stereo, mid/side, loudness and gate through the main path, with a numpy backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rvc_batch.engine.converter import Converter, Progress
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.filters import FLOAT32, ScratchSignal
from rvc_batch.engine.gate import Gate, levels
from rvc_batch.engine.programme_loudness import ProgrammeMeter
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import InputChannels, SettingsInvalid
from tests.engine_fakes import NumpyBackend, fake_voice
from tests.unit.test_converter import QUIET, convert, interrupted, speechlike

RATE = 8_000
SHORT_CUTS = replace(RVC_2023, centre=32_000, query=8_000, longest=48_000)  # segments of 2 s instead of 38


def stereo(seconds: float) -> np.ndarray:
    """Two channels that differ in level, so that they differ in content."""
    wave = speechlike(RATE, round(seconds * RATE))
    return np.stack([wave, 0.3 * wave[::-1]], axis=1)


def in_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_both_channels_are_converted_with_the_f0_and_the_cuts_of_their_mean(tmp_path: Path) -> None:
    wave, backend = stereo(8), NumpyBackend()
    stereo_settings = QUIET.with_changes(channels="stereo")
    out, rate, report = convert(
        in_folder(tmp_path / "a"), wave, RATE, stereo_settings, backend=backend, rules=SHORT_CUTS
    )
    assert out.shape == (8 * rate, 2)
    assert (report.channels_out, report.samples_out) == (2, 8 * rate)
    assert len(backend.seen) == 2 * report.segments > 2
    first, second = backend.seen[: report.segments], backend.seen[report.segments :]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.source, other.source)  # f0, phase and noise of the excitation
        assert not np.array_equal(one.content, other.content)
    swapped, _, _ = convert(in_folder(tmp_path / "b"), wave[:, ::-1], RATE, stereo_settings, rules=SHORT_CUTS)
    np.testing.assert_array_equal(swapped, out[:, ::-1])


def test_two_equal_channels_are_the_mono_conversion_twice(tmp_path: Path) -> None:
    wave = speechlike(RATE, 3 * RATE)
    settings = QUIET.with_changes(rms_mix_rate=0.25)
    mono, _, _ = convert(in_folder(tmp_path / "a"), wave, RATE, settings)
    both, _, _ = convert(
        in_folder(tmp_path / "b"), np.stack([wave, wave], axis=1), RATE, settings.with_changes(channels="stereo")
    )
    np.testing.assert_array_equal(both, np.stack([mono, mono], axis=1))


def test_one_gain_brings_both_channels_down(tmp_path: Path) -> None:
    wave, backend = speechlike(RATE, 2 * RATE)[:, None] * [6.0, 0.5], NumpyBackend()
    convert(tmp_path, wave, RATE, QUIET.with_changes(channels="stereo"), backend=backend)
    loud, soft = (x.content[100:300] for x in backend.seen)
    np.testing.assert_allclose(loud, 12 * soft, rtol=1e-3)


def test_mid_side_keeps_the_sides_and_converts_the_middle(tmp_path: Path) -> None:
    wave = stereo(4)
    settings = QUIET.with_changes(resample_rate=48_000)
    mono, _, _ = convert(in_folder(tmp_path / "a"), wave, RATE, settings)
    out, rate, report = convert(in_folder(tmp_path / "b"), wave, RATE, settings.with_changes(channels="mid_side"))
    assert (rate, report.channels_out, out.shape) == (48_000, 2, (4 * 48_000, 2))
    np.testing.assert_allclose(out.mean(axis=1), mono, atol=1e-6)
    kept = (out[:, 0] - out[:, 1])[::6] / 2  # at the rate of the source again
    np.testing.assert_allclose(kept[100:-100], (wave[:, 0] - wave[:, 1])[100:-100] / 2, atol=1e-3)


@pytest.mark.parametrize("channels", ["stereo", "mid_side"])
def test_a_mono_source_stays_mono(tmp_path: Path, channels: str) -> None:
    wave = speechlike(RATE, RATE)
    mono, _, _ = convert(in_folder(tmp_path / "a"), wave, RATE)
    out, _, report = convert(in_folder(tmp_path / "b"), wave, RATE, QUIET.with_changes(channels=channels))
    assert report.channels_out == 1
    np.testing.assert_array_equal(out, mono)


def test_more_than_two_channels_are_only_taken_as_mono(tmp_path: Path) -> None:
    wave = np.repeat(speechlike(RATE, RATE)[:, None], 6, axis=1)
    convert(tmp_path, wave, RATE)
    with pytest.raises(InputChannels, match="6 channels, and channels = stereo keeps two at most"):
        convert(tmp_path, wave, RATE, QUIET.with_changes(channels="stereo"))
    with pytest.raises(SettingsInvalid, match="mid_side needs seams exact"):
        QUIET.with_changes(channels="mid_side", seams="upstream")


@pytest.mark.parametrize(("channels", "after_s"), [("stereo", 1), ("stereo", 4.5), ("mid_side", 3)])
def test_an_interrupted_stereo_conversion_goes_on_with_the_same_bytes(
    tmp_path: Path, channels: str, after_s: float
) -> None:
    """Stopped in the first channel, in the second one, and in the middle."""
    wave = stereo(8)
    settings = QUIET.with_changes(channels=channels, rms_mix_rate=0.25, gate_db=-60.0)
    convert(in_folder(tmp_path / "a"), wave, RATE, settings, rules=SHORT_CUTS)
    interrupted(in_folder(tmp_path / "b"), wave, RATE, after_s, settings=settings, rules=SHORT_CUTS)
    backend = NumpyBackend()
    source, target, work = tmp_path / "b" / "in.wav", tmp_path / "b" / "out.wav", tmp_path / "b" / "work"
    converter = Converter(backend, scratch=tmp_path / "scratch")  # type: ignore[arg-type]
    seen: list[Progress] = []
    report = converter.convert(
        source, target, voice=fake_voice(), settings=settings, workspace=work, progress=seen.append, rules=SHORT_CUTS
    )
    lanes = 2 if channels == "stereo" else 1
    assert 0 < len(backend.seen) < report.segments * lanes
    done = [p.seconds_done for p in seen if p.stage == "synth"]
    assert done == sorted(done)
    assert target.read_bytes() == (tmp_path / "a" / "out.wav").read_bytes()
    assert not work.exists()


def lufs_of(wave: np.ndarray, rate: int) -> float:
    meter = ProgrammeMeter(rate, 1 if wave.ndim == 1 else 2)
    meter.add(wave)
    return meter.measure().lufs


@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_the_output_has_the_loudness_that_was_asked_for(tmp_path: Path, channels: str) -> None:
    settings = QUIET.with_changes(channels=channels, loudness_lufs=-30.0)
    out, rate, report = convert(tmp_path, stereo(5), RATE, settings)
    assert lufs_of(out, rate) == pytest.approx(-30, abs=0.01)
    assert report.warnings == ()


def test_a_peak_that_forbids_the_loudness_is_a_warning(tmp_path: Path) -> None:
    settings = QUIET.with_changes(loudness_lufs=-5.0)
    out, rate, report = convert(tmp_path, stereo(5), RATE, settings)
    assert np.abs(out).max() <= 10 ** (-1 / 20)
    (warning,) = report.warnings
    assert warning == f"peaks allow {lufs_of(out, rate):.1f} LUFS, -5 were asked for (-1 dBTP is kept)"
    silent = in_folder(tmp_path / "silent")
    _, _, report = convert(silent, np.zeros(RATE // 4), RATE, settings)
    assert "cannot be told" in report.warnings[0]


def test_the_gate_silences_gaps_and_cuts_no_onset(tmp_path: Path) -> None:
    wave = speechlike(RATE, 4 * RATE)
    wave[:RATE] = 1e-4
    wave[2 * RATE :] = 1e-4
    plain, rate, _ = convert(in_folder(tmp_path / "a"), wave, RATE)
    out, _, _ = convert(in_folder(tmp_path / "b"), wave, RATE, QUIET.with_changes(gate_db=-50.0))
    assert np.abs(plain[: rate // 2]).max() > 1e-3, "without it there is noise"
    assert not out[: round(0.88 * rate)].any()
    assert not out[round(2.33 * rate) :].any()
    is_open = slice(round(0.92 * rate), round(2.28 * rate))
    np.testing.assert_array_equal(out[is_open], plain[is_open])


def test_the_gate_is_the_same_block_by_block(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).standard_normal(50_001).astype(FLOAT32) * 0.01
    wave[20_000:30_000] = 0
    wave.tofile(tmp_path / "a.f32")
    found = levels(ScratchSignal(tmp_path / "a.f32", wave.size, FLOAT32), 0.5)
    assert found.size == -(-wave.size // 160)
    np.testing.assert_allclose(found[3], np.sqrt(np.mean(wave[480:640].astype(np.float64) ** 2)) / 0.5, rtol=1e-6)
    gate = Gate(found, -40.0, 40_000)
    whole = gate.gain(0, 125_002)
    assert set(whole) >= {0.0, 1.0}
    np.testing.assert_array_equal(np.concatenate([gate.gain(0, 777), gate.gain(777, 125_002)]), whole)


def test_all_of_it_is_off_by_default() -> None:
    settings = ConversionSettings()
    assert (settings.channels, settings.loudness_lufs, settings.gate_db) == ("mono", 0.0, 0.0)
    for name, value in (("loudness_lufs", -3.0), ("gate_db", 3.0), ("channels", "5.1")):
        with pytest.raises(SettingsInvalid, match=name):
            settings.with_changes(**{name: value})

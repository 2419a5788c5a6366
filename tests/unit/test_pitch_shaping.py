"""Shaping of f0: smoothing, automatic key, transposition, autotune, and the order of them."""

from __future__ import annotations

import numpy as np
import pytest

from rvc_batch.engine.pitch_shaping import proposed_key, shape_pitch, smooth, snap
from rvc_batch.engine.scales import pitch_classes
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import PitchTrack
from rvc_batch.errors import SettingsInvalid

CHROMATIC = tuple(range(12))


def track(*f0: float) -> PitchTrack:
    return PitchTrack(np.array(f0, np.float32))


def note(number: float) -> float:
    """Return the frequency of a MIDI note."""
    return float(440 * 2 ** ((number - 69) / 12))


def shaped(pitch: PitchTrack, context: int = 0, *, fills: bool = False, **settings: object) -> PitchTrack:
    return shape_pitch(
        pitch, ConversionSettings().with_changes(**settings), context=context, fills_unvoiced=fills
    ).pitch


def test_nothing_asked_for_changes_no_bit() -> None:
    measured = PitchTrack(np.random.default_rng(0).uniform(50, 900, 500).astype(np.float32))
    np.testing.assert_array_equal(shaped(measured).f0, measured.f0)


@pytest.mark.parametrize(
    ("scale", "classes"),
    [
        ("chromatic", tuple(range(12))),
        ("C major", (0, 2, 4, 5, 7, 9, 11)),
        ("A minor", (0, 2, 4, 5, 7, 9, 11)),
        ("F# minor", (1, 2, 4, 6, 8, 9, 11)),
        ("Cb major", (1, 3, 4, 6, 8, 10, 11)),
        ("A harmonic minor", (0, 2, 4, 5, 8, 9, 11)),
        ("B♭ minor pentatonic", (1, 3, 5, 8, 10)),
    ],
)
def test_scales_are_known_by_name(scale: str, classes: tuple[int, ...]) -> None:
    assert pitch_classes(scale) == classes


@pytest.mark.parametrize("scale", ["", "major", "H major", "C dorian", "c major", "C  major", "chromatic "])
def test_other_scales_are_refused(scale: str) -> None:
    with pytest.raises(SettingsInvalid, match="expected 'chromatic', or a note and one of major, minor"):
        pitch_classes(scale)


def test_autotune_snaps_voiced_frames_and_leaves_unvoiced_ones() -> None:
    sung = track(0, note(69.4), note(69.6), 0, note(60.2))
    np.testing.assert_allclose(snap(sung, CHROMATIC, 1.0).f0, [0, note(69), note(70), 0, note(60)], rtol=1e-6)


def test_autotune_goes_a_share_of_the_way_in_semitones() -> None:
    np.testing.assert_allclose(snap(track(note(69.4)), CHROMATIC, 0.25).f0, [note(69.3)], rtol=1e-6)


def test_autotune_finds_the_nearest_note_of_a_scale_across_octaves() -> None:
    c_major = pitch_classes("C major")
    numbers = np.arange(30.1, 100, 0.371)
    found = 69 + 12 * np.log2(snap(track(*map(note, numbers)), c_major, 1.0).f0 / 440)
    white = [n for n in range(140) if n % 12 in c_major]
    nearest = [min(white, key=lambda w: abs(w - number)) for number in numbers]
    np.testing.assert_allclose(found, nearest, atol=1e-4)


def test_half_way_the_lower_note_counts() -> None:
    assert snap(track(note(66)), (0, 5, 7), 1.0).f0[0] == pytest.approx(note(65))


def test_autotune_keeps_the_transposition_and_ends_in_the_scale() -> None:
    """E up by three semitones is G, a note of C major; snapped before, F up by half a semitone would be between."""
    np.testing.assert_allclose(
        shaped(track(note(64.1), 0), transpose=3.0, autotune=1.0, autotune_scale="C major").f0,
        [note(67), 0],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        shaped(track(note(65)), transpose=0.7, autotune=1.0).f0,
        [note(66)],
        rtol=1e-6,
    )


def test_key_brings_the_median_of_voiced_frames_nearest_to_the_target() -> None:
    pitch = track(0, 0, 0, 0, 0, 100, 110, 400)
    assert proposed_key(pitch, 155.0) == 6  # 12 log2(155 / 110) = 5.94
    assert proposed_key(pitch, 110.0) == 0
    assert proposed_key(track(500, 0), 155.0) == -12
    assert proposed_key(track(60), 1_000.0) == 12
    assert proposed_key(track(0, 0), 155.0) == 0


def test_key_is_added_to_the_transposition_and_told() -> None:
    found = shape_pitch(
        track(110, 0), ConversionSettings(auto_key=155.0, transpose=-2.0), context=0, fills_unvoiced=False
    )
    assert found.auto_key == 6
    np.testing.assert_allclose(found.pitch.f0, [110 * 2 ** (4 / 12), 0], rtol=1e-6)


def test_key_does_not_hear_the_reflected_context() -> None:
    pitch = track(*[400] * 6, 110, 110, 110, *[400] * 6)
    settings = ConversionSettings(auto_key=155.0)
    assert shape_pitch(pitch, settings, context=6, fills_unvoiced=False).auto_key == 6
    assert shape_pitch(pitch, settings, context=0, fills_unvoiced=False).auto_key == -12


def test_smoothing_takes_medians_inside_voiced_runs_only() -> None:
    measured = track(100, 900, 102, 104, 103, 0, 200, 50, 210, 0, 300)
    np.testing.assert_array_equal(smooth(measured, 3).f0, [100, 102, 104, 103, 103, 0, 200, 200, 210, 0, 300])


def test_smoothing_shrinks_towards_the_ends_of_a_run() -> None:
    measured = track(0, 5, 1, 9, 2, 8, 3, 7, 0)
    # half widths 0 1 2 3 2 1 0
    np.testing.assert_array_equal(smooth(measured, 31).f0, [0, 5, 5, 5, 5, 7, 7, 7, 0])


def test_smoothing_in_blocks_equals_smoothing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    f0 = rng.uniform(80, 400, 3_000) * (rng.uniform(size=3_000) > 0.05)
    measured = PitchTrack(f0.astype(np.float32))
    whole = smooth(measured, 9).f0
    monkeypatch.setattr("rvc_batch.engine.pitch_shaping.BLOCK_FRAMES", 7)
    np.testing.assert_array_equal(smooth(measured, 9).f0, whole)
    assert not np.array_equal(whole, measured.f0)


def test_the_dialect_fills_gaps_after_smoothing_and_key_and_before_the_scale() -> None:
    pitch = track(note(60), 0, 0, 0, note(62))
    filled = shaped(pitch, fills=True, autotune=1.0)  # linear in Hz: notes 60.5, 61.0 and 61.5
    np.testing.assert_allclose(filled.f0, [note(n) for n in (60, 61, 61, 62, 62)], rtol=1e-6)
    found = shape_pitch(
        track(110, 0, 0, 0, 900, 110, 110), ConversionSettings(auto_key=110.0), context=0, fills_unvoiced=True
    )
    assert found.auto_key == 0

"""Formant shift: what stftPitchShift does, in pieces as in one, formants moved and pitch kept, the same on going on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import lfilter
from stftpitchshift import StftPitchShift

from rvc_batch.engine import formants
from rvc_batch.engine.checkpointing import Workspace
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.filters import FLOAT32, ScratchSignal, highpass_to_file
from rvc_batch.engine.formants import FRAME, HOP, FormantShift, shift_to_file
from rvc_batch.engine.preparation import prepare
from rvc_batch.engine.types import StageClock
from tests.unit.test_channels import SHORT_CUTS, in_folder, stereo
from tests.unit.test_converter import QUIET, convert, interrupted

RATE = 16_000
F0_HZ, FORMANT_HZ = 125.0, 1_500.0


def vowel(seconds: float) -> np.ndarray:
    """Return pulses through one resonance, and a little hiss."""
    n = round(seconds * RATE)
    hiss = np.random.default_rng(0).standard_normal(n) * 1e-3
    pulses = hiss + (np.arange(n) % round(RATE / F0_HZ) == 0)
    radius, angle = 0.95, 2 * np.pi * FORMANT_HZ / RATE
    wave = 0.1 * lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], pulses - pulses.mean())
    return wave.astype(np.float32)


def in_file(folder: Path, wave: np.ndarray) -> ScratchSignal:
    path = folder / "wave.f32"
    path.write_bytes(wave.astype(FLOAT32).tobytes())
    return ScratchSignal(path, wave.size, FLOAT32)


def shifted(folder: Path, wave: np.ndarray, factor: float, quefrency_ms: float = 1.0) -> np.ndarray:
    found, peak = shift_to_file(in_file(folder, wave), folder / "out.f32", FormantShift(factor, quefrency_ms))
    result = found.read(0, wave.size)
    assert peak == pytest.approx(np.abs(result).max(), rel=1e-6)
    return result


@pytest.mark.parametrize(("factor", "quefrency_ms"), [(1.3, 1.0), (0.8, 1.5), (2.0, 4.0), (0.25, 0.1)])
def test_it_is_what_the_library_of_applio_does(tmp_path: Path, factor: float, quefrency_ms: float) -> None:
    wave = vowel(1.5)
    library = StftPitchShift(FRAME, HOP, RATE)
    theirs = library.shiftpitch(wave.astype(np.float64), 1, quefrency_ms / 1_000, factor)
    inside = slice(FRAME, -FRAME - HOP)  # it fades in and out
    difference = (shifted(tmp_path, wave, factor, quefrency_ms) - theirs)[inside]
    # it drops what its phase vocoder takes for a frequency below 0 or above 8 kHz
    assert np.linalg.norm(difference) < 5e-3 * np.linalg.norm(theirs[inside])


@pytest.mark.parametrize("piece", [HOP, 4_096, 1 << 20])
def test_pieces_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    wave = vowel(3.01)[:-7] if piece > HOP else vowel(0.3)
    usual = shifted(tmp_path, wave, 1.3)
    monkeypatch.setattr(formants, "PIECE", piece)
    np.testing.assert_allclose(shifted(tmp_path, wave, 1.3), usual, atol=1e-7)  # float32 in between


@pytest.mark.parametrize("samples", [320, 1_000, 1_024, 32_767, 32_769])
def test_any_length_stays_and_a_factor_of_one_gives_the_input(tmp_path: Path, samples: int) -> None:
    wave = vowel(2.1)[:samples]
    wave = wave - wave.mean()  # the constant and 8 kHz are taken out, as by the library
    found = shifted(tmp_path, wave, 1.0)
    assert found.size == samples
    assert np.linalg.norm(found - wave) < 0.1 * np.linalg.norm(wave)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_formants_move_and_the_pitch_stays(tmp_path: Path, factor: float) -> None:
    found = shifted(tmp_path, vowel(2), factor)[RATE // 2 :][:RATE]  # one second: bins of 1 Hz
    spectrum = np.abs(np.fft.rfft(found * np.hanning(RATE)))
    harmonics = spectrum[:: round(F0_HZ)]
    # pulses are 128 samples apart, hence every harmonic is at a multiple of 125 Hz, and nothing between them
    assert spectrum.reshape(-1)[round(F0_HZ / 2) :: round(F0_HZ)].max() < 0.05 * harmonics.max()
    assert harmonics.argmax() * F0_HZ == pytest.approx(factor * FORMANT_HZ, abs=F0_HZ)


def test_digital_silence_stays_silence(tmp_path: Path) -> None:
    wave = np.concatenate([np.zeros(RATE), vowel(0.5), np.zeros(RATE)])
    found = shifted(tmp_path, wave, 1.5)
    assert np.isfinite(found).all()
    assert not found[: RATE - FRAME].any()
    assert not found[-RATE + FRAME :].any()


def test_a_conversion_hears_the_shifted_signal_in_every_lane(tmp_path: Path) -> None:
    wave = stereo(3)
    plain, _, _ = convert(in_folder(tmp_path / "a"), wave, 8_000, QUIET.with_changes(channels="stereo"))
    settings = QUIET.with_changes(channels="stereo", formant_shift=1.3)
    found, _, _ = convert(in_folder(tmp_path / "b"), wave, 8_000, settings)
    assert found.shape == plain.shape
    for channel in range(2):
        assert not np.array_equal(found[:, channel], plain[:, channel])
    swapped, _, _ = convert(in_folder(tmp_path / "c"), wave[:, ::-1], 8_000, settings)
    np.testing.assert_array_equal(swapped, found[:, ::-1])


def test_the_signal_is_shifted_then_brought_down_then_filtered(tmp_path: Path) -> None:
    """Applio's order; the peak is that of the shifted signal."""
    wave = 8 * vowel(1)
    sf.write(tmp_path / "in.wav", wave, RATE, "FLOAT")
    work = Workspace(in_folder(tmp_path / "work"))
    found = prepare(tmp_path / "in.wav", work, RVC_2023, StageClock(), formants=FormantShift(0.5))
    expected, peak = shift_to_file(in_file(tmp_path, wave), tmp_path / "shifted.f32", FormantShift(0.5))
    assert found.info.peak == peak != np.abs(wave).max()
    filtered = highpass_to_file(expected, tmp_path / "filtered.f64", 0.95 / peak)
    np.testing.assert_allclose(found.signal.read(0, RATE), filtered.read(0, RATE), atol=1e-6)
    assert not work.shifted.exists()
    assert not work.decoded.exists()


@pytest.mark.parametrize("channels", ["stereo", "mid_side"])
def test_going_on_gives_the_same_bytes_and_another_shift_begins_again(tmp_path: Path, channels: str) -> None:
    wave = stereo(5)
    settings = QUIET.with_changes(channels=channels, rms_mix_rate=0.25, formant_shift=0.8)
    convert(in_folder(tmp_path / "a"), wave, 8_000, settings, rules=SHORT_CUTS)
    whole = (tmp_path / "a" / "out.wav").read_bytes()
    other = settings.with_changes(formant_shift=1.2)
    for name, before in (("b", settings), ("c", other)):
        folder = in_folder(tmp_path / name)
        interrupted(folder, wave, 8_000, 3, settings=before, rules=SHORT_CUTS)
        convert(folder, wave, 8_000, settings, rules=SHORT_CUTS, workspace=folder / "work")
        assert (folder / "out.wav").read_bytes() == whole

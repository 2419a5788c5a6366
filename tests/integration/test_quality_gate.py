"""Conversions with the voices of the package are speech: the words, the pitch and the speaker that were asked for.

Three sentences that no training has seen, each voice into the other; measured with what knows nothing of the engine:
PocketSphinx for words, Praat for pitch, cepstra for the speaker; with the voices' own settings.
The bounds leave room for rounding, not for an engine that is broken and still makes sound. All figures on more
sentences: benchmarks/quality.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import parselmouth
import pytest
import soundfile as sf
from numpy.typing import NDArray
from pocketsphinx import Decoder
from scipy.fft import dct

import rvc_batch
from rvc_batch.demo.box import make_box
from rvc_batch.engine.mel_basis import mel_filter_bank
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.home import Home
from rvc_batch.jobs.presets import Presets
from tools.demo_voices.sentences import HELD_OUT

F32 = NDArray[np.float32]

SPEECH = Path(__file__).parents[1] / "speech"
SENTENCES = (0, 5, 11)
RATE_HZ = 16_000
SEMITONES = {("rms", "slt"): 10, ("slt", "rms"): -10}
MAX_WORD_ERRORS = 0.35
MAX_CENTS = 25.0  # from the transposed f0
MIN_VOICING = 0.92
MAX_CEPSTRAL_SHARE = 0.3  # of the way from the target's mean cepstrum to the source's
SPEECH_RMS, SILENCE_RMS = 1e-2, 1e-3  # of a twentieth of a second
MAX_RING_DB = 2.5  # over what lies half-way; the speech itself has -2 to -1
FRAME, RING_FRAMES, RING_FROM = 160, 24, 15  # samples, frames, multiple of 100 Hz: below it harmonics decide
SILENT_POWER = 1e-7  # of a line; less says nothing
BACKENDS_RELATIVE_L2 = 1e-3


@dataclass(frozen=True)
class Heard:
    """One conversion beside its source and the target reading the same sentence."""

    text: str
    source: F32
    output: F32
    parallel: F32


Convert = Callable[[str, str, int, str], F32]


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Convert a sentence of one voice into the other, once per backend."""
    home = Home(tmp_path_factory.mktemp("gate") / "home")
    make_box(home)
    made: dict[tuple[str, str, int, str], F32] = {}

    def converted(source: str, target: str, sentence: int, backend: str) -> F32:
        key = source, target, sentence, backend
        if key not in made:
            path = home.root / ("-".join(map(str, key)) + ".wav")
            shipped = Presets(voices=home.voices).of_voice(target)
            assert shipped is not None
            settings = ConversionSettings().with_changes(**shipped.values)
            settings = settings.with_changes(auto_key=0.0, transpose=SEMITONES[source, target])
            spoken = SPEECH / f"{source}-{sentence:02}.flac"
            rvc_batch.convert(spoken, path, voice=target, settings=settings, backend=backend, home=home.root)
            made[key] = read(path)
        return made[key]

    return converted


@pytest.fixture(scope="module", params=SEMITONES, ids="-to-".join)
def route(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def heard(route: tuple[str, str], convert: Convert) -> list[Heard]:
    source, target = route
    return [
        Heard(
            HELD_OUT[i],
            read(SPEECH / f"{source}-{i:02}.flac"),
            convert(source, target, i, "mlx"),
            read(SPEECH / f"{target}-{i:02}.flac"),
        )
        for i in SENTENCES
    ]


def read(path: Path) -> F32:
    wave, rate = sf.read(path, dtype="float32")
    assert rate == RATE_HZ
    return wave


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def word_errors(decoder: Decoder, wave: F32, text: str) -> int:
    """Return how many words of the text are not heard, or how many of those heard are not there, if that is more."""
    decoder.start_utt()
    decoder.process_raw((wave * 32767).clip(-32768, 32767).astype("<i2").tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = words(decoder.hyp().hypstr if decoder.hyp() else "")
    wanted = words(text)
    right = sum(block.size for block in SequenceMatcher(None, wanted, found, autojunk=False).get_matching_blocks())
    return max(len(wanted), len(found)) - right


def f0(wave: F32) -> NDArray[np.float64]:
    """Return Praat's f0 in Hz every 10 ms, 0 where unvoiced."""
    sound = parselmouth.Sound(wave.astype(np.float64), RATE_HZ)
    track: NDArray[np.float64] = sound.to_pitch(0.01, 60.0, 400.0).selected_array["frequency"]
    return track


def mean_cepstrum(waves: list[F32]) -> NDArray[np.float64]:
    """Return mel cepstra 1 to 13, averaged over what is loud."""
    frames = np.concatenate([np.lib.stride_tricks.sliding_window_view(w, 1024)[::160] for w in waves])
    frames = frames[np.sqrt(np.mean(frames**2, axis=1)) > SPEECH_RMS]
    mel = np.abs(np.fft.rfft(frames * np.hanning(1024), axis=1)) @ mel_filter_bank().T
    mean: NDArray[np.float64] = dct(20 * np.log10(np.maximum(mel, 1e-5)), norm="ortho", axis=1)[:, 1:14].mean(axis=0)
    return mean


def test_words_are_understood(heard: list[Heard]) -> None:
    decoder = Decoder(samprate=RATE_HZ, loglevel="FATAL")
    errors = sum(word_errors(decoder, h.output, h.text) for h in heard)
    assert errors / sum(len(words(h.text)) for h in heard) <= MAX_WORD_ERRORS


def test_pitch_is_the_transposed_one(heard: list[Heard], route: tuple[str, str]) -> None:
    cents, agreement = [], []
    for h in heard:
        wanted, got = f0(h.source) * 2 ** (SEMITONES[route] / 12), f0(h.output)
        frames = min(wanted.size, got.size)
        wanted, got = wanted[:frames], got[:frames]
        both = (wanted > 0) & (got > 0)
        cents.append(1200 * np.abs(np.log2(got[both] / wanted[both])))
        agreement.append((wanted > 0) == (got > 0))
    assert np.median(np.concatenate(cents)) <= MAX_CENTS
    assert np.mean(np.concatenate(agreement)) >= MIN_VOICING


def test_speaker_is_the_target(heard: list[Heard]) -> None:
    source, output, target = (
        mean_cepstrum(waves) for waves in zip(*((h.source, h.output, h.parallel) for h in heard), strict=True)
    )
    assert np.linalg.norm(output - target) <= MAX_CEPSTRAL_SHARE * np.linalg.norm(source - target)


def test_nothing_clips_and_no_speech_is_missing(heard: list[Heard]) -> None:
    for h in heard:
        assert h.output.size == h.source.size
        assert np.abs(h.output).max() < 1.0
        count = h.source.size // 800
        before, after = (np.sqrt(np.mean(w[: count * 800].reshape(-1, 800) ** 2, axis=1)) for w in (h.source, h.output))
        assert not np.any((before > SPEECH_RMS) & (after < SILENCE_RMS))


def ring_db(wave: F32) -> float:
    """Return how far the power at multiples of the frame rate rises above that half-way between them, on average."""
    size = RING_FRAMES * FRAME
    windows = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2] * np.hanning(size)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2 + SILENT_POWER
    there, between = power[:, RING_FRAMES:-1:RING_FRAMES], power[:, RING_FRAMES // 2 :: RING_FRAMES]
    around = (between[:, :-1] + between[:, 1:]) / 2
    return float(10 * np.log10(there / around)[:, RING_FROM:].mean())


def test_nothing_rings_at_the_rate_of_the_frames(heard: list[Heard]) -> None:
    assert np.mean([ring_db(h.output) for h in heard]) <= MAX_RING_DB


def test_backends_agree_sample_by_sample(convert: Convert) -> None:
    ours, theirs = (convert("rms", "slt", SENTENCES[0], backend) for backend in ("mlx", "torch"))
    assert np.linalg.norm(ours - theirs) <= BACKENDS_RELATIVE_L2 * np.linalg.norm(theirs)

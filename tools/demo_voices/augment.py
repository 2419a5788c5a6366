"""Ways to make clean speech sound recorded: tempo and pitch, colour, noise, room, level. Pure functions of their
random numbers.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import signal

from tools.demo_voices.speech import RATE_HZ

__all__ = ["SPEED", "colour", "disturb", "level", "noise", "resample", "room"]

F32 = NDArray[np.float32]

SPEED = (0.83, 1.22)  # factors of tempo and pitch
COLOUR_DB = 8.0
SNR_DB = (8.0, 45.0)
LEVEL_DB = (-25.0, 0.0)
DECAY_S = (0.05, 0.45)  # of the room, to 60 dB below


def resample(wave: F32, factor: float) -> F32:
    """Play [N] `factor` times as fast: tempo, pitch and formants rise together; returns about N / factor samples."""
    if factor == 1.0:
        return wave
    faster: F32 = soxr.resample(wave, RATE_HZ * factor, RATE_HZ, quality="MQ").astype(np.float32)
    return faster


def colour(wave: F32, random: np.random.Generator) -> F32:
    """Filter with a smooth random curve, as microphones do."""
    bands = random.normal(0.0, COLOUR_DB / 2, 6).clip(-COLOUR_DB, COLOUR_DB)
    taps_hz = np.array([0.0, 250.0, 700.0, 1500.0, 3000.0, 8000.0])
    curve = np.interp(np.linspace(0, 1, 65), taps_hz / 8000.0, bands)
    taps = signal.firwin2(129, np.linspace(0, 1, 65), 10 ** (curve / 20))
    filtered: F32 = signal.fftconvolve(wave, taps, mode="same").astype(np.float32)
    return filtered


def noise(wave: F32, random: np.random.Generator, snr_db: float) -> F32:
    """Add noise, white to brownish, `snr_db` below the level of the wave."""
    white = random.standard_normal(wave.size)
    pole = random.choice((0.0, 0.5, 0.9, 0.97))
    coloured = signal.lfilter([1.0 - pole], [1.0, -pole], white)
    gain = np.sqrt(np.mean(wave**2) / max(float(np.mean(coloured**2)), 1e-12)) * 10 ** (-snr_db / 20)
    noisy: F32 = (wave + gain * coloured).astype(np.float32)
    return noisy


def room(wave: F32, random: np.random.Generator) -> F32:
    """Add the decaying tail of a room."""
    decay_s = random.uniform(*DECAY_S)
    time = np.arange(1, int(decay_s * RATE_HZ)) / RATE_HZ
    tail = random.standard_normal(time.size) * np.exp(-6.9 * time / decay_s)
    tail *= random.uniform(0.1, 0.7) / np.sqrt(np.sum(tail**2))
    response = np.concatenate(([1.0], np.zeros(int(random.uniform(0.001, 0.01) * RATE_HZ)), tail))
    wet: F32 = signal.fftconvolve(wave, response)[: wave.size].astype(np.float32)
    return wet


def level(wave: F32, random: np.random.Generator) -> F32:
    """Bring the peak to a random level."""
    peak = float(np.abs(wave).max(initial=1e-5))
    scaled: F32 = (wave * (10 ** (random.uniform(*LEVEL_DB) / 20) / peak)).astype(np.float32)
    return scaled


def disturb(wave: F32, random: np.random.Generator) -> F32:
    """Apply some of colour, room and noise, and a level."""
    if random.random() < 0.6:
        wave = colour(wave, random)
    if random.random() < 0.3:
        wave = room(wave, random)
    if random.random() < 0.6:
        wave = noise(wave, random, random.uniform(*SNR_DB))
    return level(wave, random)

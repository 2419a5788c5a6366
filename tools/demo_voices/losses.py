"""What the synthesiser is compared by: mel spectra and magnitudes at several resolutions, and the adversarial terms.

Magnitudes are floored under the root: the gradient of a magnitude at zero is infinite and ends a training in NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import firwin
from torch.nn import functional

from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from tools.demo_voices.device import on_device

__all__ = [
    "N_MELS",
    "MultiResolutionLoss",
    "adversarial_loss",
    "discriminator_loss",
    "envelope_loss",
    "feature_loss",
    "grid_loss",
    "log_envelope",
    "log_mel",
    "pause_loss",
    "period_loss",
    "phase_loss",
]

N_MELS = 80
FFT, MEL_WINDOW = 1024, 640
POWER_FLOOR = 1e-7
MEL_FLOOR = 1e-4
RESOLUTIONS = (
    (2048, 512, 2048),
    (1024, 256, 1024),
    (512, 128, 512),
    (256, 64, 256),
    (128, 32, 128),
)  # size, hop, window
MOVES = (2,)  # frames
N_CEPSTRA, CEPSTRA_MOVES, CEPSTRA_WEIGHT = 13, (2, 5), 0.5
PHASE_RESOLUTION = (512, 128, 512)
PHASE_BANDS = 32  # below 1 kHz; higher harmonics keep no steady phase, so they can only be weakened by this
GRID_FRAMES, GRID_FLOOR = 16, 1e-7  # window; power of what 16 bit cannot tell
PERIOD_BANDS_HZ, PERIOD_TAPS = ((1000, 2000), (2000, 4000), (4000, 7500)), 127
PERIOD_WINDOW, PERIOD_REACH = 2 * HOP_16K, 4  # samples that are compared; frames that they and a period take
BAND_FLOOR = 1e-8  # of power: -80 dB
PAUSE_FRAMES, PAUSE_POWER = 8, 1e-5  # windows of 80 ms; -50 dB
SINE_RMS = 0.05  # between that of the sine, 0.07, and that of the noise without it, 0.03


class _Tables:
    """Windows and the mel basis, made once."""

    mel: torch.Tensor | None = None
    windows: dict[int, torch.Tensor] = {}  # noqa: RUF012 — a cache, filled on demand
    bands: torch.Tensor | None = None
    cepstra: torch.Tensor | None = None


def spectrum(wave: torch.Tensor, size: int, hop: int, window: int) -> torch.Tensor:
    """Return the complex spectrum [B, size / 2 + 1, T] of [B, N]."""
    if window not in _Tables.windows:
        _Tables.windows[window] = torch.hann_window(window)
    return torch.stft(wave, size, hop, window, _Tables.windows[window], center=False, return_complex=True)


def magnitude(wave: torch.Tensor, size: int, hop: int, window: int) -> torch.Tensor:
    """Return magnitudes [B, size / 2 + 1, T] of [B, N]."""
    parts = spectrum(wave, size, hop, window)
    return torch.sqrt(parts.real**2 + parts.imag**2 + POWER_FLOOR)


def log_mel(wave: torch.Tensor) -> torch.Tensor:
    """Return log-mel [B, N_MELS, N // 160] of [B, N] at 16 kHz; frame t is centred on the middle of its 160 samples."""
    return _log_bands(wave, MEL_WINDOW)


def log_envelope(wave: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Return log-mel [B, N_MELS, N // 160] of [B, N] without harmonics: each item through a window of its own [B].

    A window of two periods is too short to tell harmonics apart, so what is left is what the mouth does.
    """
    return torch.cat([_log_bands(item[None], int(window)) for item, window in zip(wave, windows, strict=True)])


def envelope_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the distance of log envelopes [B, N_MELS, T] and of their moves, in all bands and in the low cepstra.

    A blurred consonant is near the true one at every frame, and unlike it in how it moves. The low cepstra are what a
    recogniser looks at; what lies beyond them is mostly chance.
    """
    if _Tables.cepstra is None:
        _Tables.cepstra = on_device(dct(np.eye(N_MELS), axis=0, norm="ortho")[:N_CEPSTRA].astype(np.float32))
    off = made - wanted
    return _moving(off, MOVES) + CEPSTRA_WEIGHT * _moving(_Tables.cepstra @ off, CEPSTRA_MOVES)


class MultiResolutionLoss:
    """L1 of log magnitudes and of magnitudes, averaged over window sizes."""

    def __call__(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the loss of waves [B, N]."""
        total = made.new_zeros(())
        for size, hop, window in RESOLUTIONS:
            a, b = magnitude(made, size, hop, window), magnitude(wanted, size, hop, window)
            total = total + functional.l1_loss(torch.log(a), torch.log(b)) + functional.l1_loss(a, b) / b.mean()
        return total / len(RESOLUTIONS)


def phase_loss(made: torch.Tensor, wanted: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return the distance of the spectra [B, N] with their phases where `source` [B, N] has its sine, below 1 kHz.

    Relative to the size of each band. Where the source is in step with the speech its harmonics are no matter of
    chance; a generator that does not listen to its source cannot make this small.
    """
    size, hop, _ = PHASE_RESOLUTION
    a, b = (spectrum(wave, *PHASE_RESOLUTION)[:, :PHASE_BANDS] for wave in (made, wanted))
    is_voiced = (source.unfold(1, size, hop).square().mean(-1).sqrt() > SINE_RMS).float()[:, None]
    off = a - b
    distance = (torch.sqrt(off.real**2 + off.imag**2 + POWER_FLOOR) - POWER_FLOOR**0.5) * is_voiced
    return (distance.sum((0, 2)) / (b.abs() * is_voiced).sum((0, 2)).clamp(min=1e-2)).mean()


def grid_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return how much more of waves [B, N] than of others lies at multiples of the frame rate, line by line.

    What a generator makes of one frame it makes of the next, so it tends to ring at the rate of the frames wherever no
    harmonic is certain. Distances of spectra hardly see it: those lines are few, and what they stand in is noise.
    """
    heights = [_height_on_grid(wave, GRID_FRAMES)[0].mean((0, 2)) for wave in (made, wanted)]  # a pause as a vowel
    return functional.mse_loss(*heights)


def pause_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return how much more of waves [B, N] lies at multiples of the frame rate where others are quiet, and how far off
    their level is there, in nepers of power, added.

    Little of speech is pause, and what rings there is faint, so a mean over all of it hardly hears it; a tracker of
    pitch does.
    """
    size = PAUSE_FRAMES * HOP_16K
    is_quiet = wanted.unfold(1, size, size // 2).square().mean(-1)[:, None] < PAUSE_POWER

    def in_pauses(x: torch.Tensor) -> torch.Tensor:
        return (x * is_quiet).sum((0, 2)) / is_quiet.sum().clamp(min=1)

    ringing, level = (in_pauses(x) for x in _height_on_grid(made, PAUSE_FRAMES))
    wanted_ringing, wanted_level = (in_pauses(x) for x in _height_on_grid(wanted, PAUSE_FRAMES))
    return torch.relu(ringing - wanted_ringing).mean() + (level - wanted_level).abs().mean()


def period_loss(made: torch.Tensor, wanted: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
    """Return how differently waves [B, N] and others repeat themselves after a period of f0 [B, N / 160] in Hz.

    Frame by frame where there is voice, in bands above 1 kHz: there harmonics have no steady phase to be compared, but
    a voice that has noise in their place is hoarse.
    """
    a, b = _repetition(made, f0), _repetition(wanted, f0)
    is_voiced = (f0[:, None, 1 : a.shape[2] + 1] > 0).expand_as(a)
    return ((a - b).abs() * is_voiced).sum() / is_voiced.sum().clamp(min=1)


def discriminator_loss(real: list[torch.Tensor], made: list[torch.Tensor]) -> torch.Tensor:
    """Least squares: real to one, made to zero."""
    return sum(((1 - r) ** 2).mean() + (m**2).mean() for r, m in zip(real, made, strict=True)) / len(real)  # type: ignore[return-value]


def adversarial_loss(made: list[torch.Tensor]) -> torch.Tensor:
    """Least squares: made to one."""
    return sum(((1 - m) ** 2).mean() for m in made) / len(made)  # type: ignore[return-value]


def feature_loss(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """L1 between what the discriminators see inside, relative to its size."""
    terms = [
        functional.l1_loss(m, r) / r.abs().mean().clamp(min=1e-3)
        for rs, ms in zip(real, made, strict=True)
        for r, m in zip(rs, ms, strict=True)
    ]
    return sum(terms) / len(terms)  # type: ignore[return-value]


def _height_on_grid(wave: torch.Tensor, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each multiple of the frame rate how far the power there rises above that half-way to the next.

    In nepers of power, [B, L, W] for windows of so many frames; and the mean power of each, likewise [B, 1, W].
    """
    size = frames * HOP_16K
    parts = spectrum(wave, size, size // 2, size)
    power = parts.real**2 + parts.imag**2 + GRID_FLOOR
    there, between = power[:, frames:-1:frames], power[:, frames // 2 :: frames]
    around = (between[:, :-1] + between[:, 1:]) / 2
    return torch.log(there / around), torch.log(power.mean(1, keepdim=True))


def _repetition(wave: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
    """Return the correlation [B, bands, T - PERIOD_REACH] of [B, N] with itself a period on, where f0 > 0."""
    if _Tables.bands is None:
        filters = [firwin(PERIOD_TAPS, band, fs=SAMPLE_RATE_16K, pass_zero=False) for band in PERIOD_BANDS_HZ]
        _Tables.bands = on_device(np.stack(filters).astype(np.float32)[:, None])
    bands = functional.conv1d(wave[:, None], _Tables.bands, padding=PERIOD_TAPS // 2)
    frames = f0.shape[1] - PERIOD_REACH
    lag = (SAMPLE_RATE_16K / f0[:, 1 : frames + 1].clamp(min=SAMPLE_RATE_16K / PERIOD_WINDOW)).round().long()
    here = torch.arange(frames)[:, None] * HOP_16K + torch.arange(PERIOD_WINDOW)
    there = (here + lag[..., None]).flatten(1)[:, None].expand(-1, bands.shape[1], -1)
    first = bands[:, :, here.flatten()].unflatten(2, (frames, PERIOD_WINDOW))
    second = bands.gather(2, there).unflatten(2, (frames, PERIOD_WINDOW))
    sizes = [(x**2).mean(-1) + BAND_FLOOR for x in (first, second)]
    return (first * second).mean(-1) / torch.sqrt(sizes[0] * sizes[1])


def _moving(off: torch.Tensor, moves: tuple[int, ...]) -> torch.Tensor:
    """Return the mean size of [..., T] and of its moves within so many frames, added."""
    terms = [off.abs().mean(), *((off[..., k:] - off[..., :-k]).abs().mean() for k in moves)]
    return torch.stack(terms).sum()


def _log_bands(wave: torch.Tensor, window: int) -> torch.Tensor:
    if _Tables.mel is None:
        _Tables.mel = on_device(_basis())
    side = (FFT - HOP_16K) // 2
    padded = functional.pad(wave[:, None], (side, side), mode="reflect")[:, 0]
    return torch.log(torch.clamp(_Tables.mel @ magnitude(padded, FFT, HOP_16K, window), min=MEL_FLOOR))


def _basis() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return triangles [N_MELS, FFT / 2 + 1], even on the mel scale from 0 to 8000 Hz, each of unit sum."""
    hz = np.arange(FFT // 2 + 1) * SAMPLE_RATE_16K / FFT
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), N_MELS + 2) / 2595) - 1)
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((hz - low) / (mid - low), (high - hz) / (high - mid)))
    return (triangles / np.maximum(triangles.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)

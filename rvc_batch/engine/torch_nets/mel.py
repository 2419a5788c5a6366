"""The log-mel front ends of the pitch networks in torch. They hold tables, no parameters."""

from __future__ import annotations

import torch
from torch.nn import functional

from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.mel_basis import LOG_FLOOR, N_FFT, hann_window, mel_filter_bank, slaney_filter_bank
from rvc_batch.engine.network_config import HOP_16K

__all__ = ["FcpeLogMel", "LogMel", "pad_frames"]

POWER_FLOOR = 1e-9  # added to the power of each bin, as FCPE was trained


class LogMel:
    """Turn a wave into natural-log mel magnitudes: centred Hann frames of 1024, hop 160, reflected ends."""

    def __init__(self) -> None:
        self._window = torch.from_numpy(hann_window())
        self._basis = torch.from_numpy(mel_filter_bank())

    def __call__(self, wave: torch.Tensor) -> torch.Tensor:
        """Return [1 + N // 160, 128] for wave [N] at 16 kHz.

        Raises:
            ValueError: the wave is too short to be reflected by half a window.
        """
        n, half = wave.shape[0], N_FFT // 2
        if n <= half:
            raise ValueError(f"the wave has {n} samples, log-mel frames need more than {half}: pad it before")
        spectrum = torch.stft(
            wave, N_FFT, HOP_16K, window=self._window, center=True, pad_mode="reflect", return_complex=True
        )
        return torch.log(torch.clamp(spectrum.abs().T @ self._basis.T, min=LOG_FLOOR))


class FcpeLogMel:
    """Turn a wave into natural-log mel magnitudes: Hann frames of 1024, hop 160, the first at the first sample."""

    def __init__(self, n_mels: int) -> None:
        self._window = torch.from_numpy(hann_window())
        self._basis = torch.from_numpy(slaney_filter_bank(n_mels))

    def __call__(self, wave: torch.Tensor) -> torch.Tensor:
        """Return [T, n_mels] for wave [(T - 1) · 160 + 1024] at 16 kHz."""
        spectrum = torch.stft(wave, N_FFT, HOP_16K, window=self._window, center=False, return_complex=True)
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR)
        return torch.log(torch.clamp(magnitude.T @ self._basis.T, min=LOG_FLOOR))


def pad_frames(mel: torch.Tensor, multiple: int, padding: MelPadding) -> torch.Tensor:
    """Extend log-mel frames [T, M] on the right to a multiple of `multiple`.

    Raises:
        ValueError: too few frames to be reflected.
    """
    frames = mel.shape[0]
    missing = -frames % multiple
    if padding is MelPadding.ZEROS:
        return functional.pad(mel, (0, 0, 0, missing))
    if missing >= frames:
        raise ValueError(f"{frames} frames cannot be reflected to {frames + missing}: pad the wave before")
    return functional.pad(mel.T[None], (0, missing), mode="reflect")[0].T

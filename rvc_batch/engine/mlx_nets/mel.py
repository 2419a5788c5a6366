"""The log-mel front ends of the pitch networks in MLX. They run on the device; they hold tables, no parameters."""

from __future__ import annotations

import mlx.core as mx

from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.mel_basis import LOG_FLOOR, N_FFT, hann_window, mel_filter_bank, slaney_filter_bank
from rvc_batch.engine.network_config import HOP_16K

__all__ = ["FcpeLogMel", "LogMel", "pad_frames"]

POWER_FLOOR = 1e-9  # added to the power of each bin, as FCPE was trained


class LogMel:
    """Turn a wave into natural-log mel magnitudes: centred Hann frames of 1024, hop 160, reflected ends."""

    def __init__(self) -> None:
        self._window = mx.array(hann_window())
        self._basis = mx.array(mel_filter_bank())

    def __call__(self, wave: mx.array) -> mx.array:
        """Return [1 + N // 160, 128] for wave [N] at 16 kHz.

        Raises:
            ValueError: the wave is too short to be reflected by half a window.
        """
        n, half = wave.shape[0], N_FFT // 2
        if n <= half:
            raise ValueError(f"the wave has {n} samples, log-mel frames need more than {half}: pad it before")
        wave = mx.concatenate([wave[half:0:-1], wave, wave[n - 2 : n - half - 2 : -1]])
        frames = mx.as_strided(mx.contiguous(wave), (1 + n // HOP_16K, N_FFT), (HOP_16K, 1))
        magnitude = mx.abs(mx.fft.rfft(frames * self._window, axis=-1))
        return mx.log(mx.maximum(magnitude @ self._basis.T, LOG_FLOOR))


class FcpeLogMel:
    """Turn a wave into natural-log mel magnitudes: Hann frames of 1024, hop 160, the first at the first sample."""

    def __init__(self, n_mels: int) -> None:
        self._window = mx.array(hann_window())
        self._basis = mx.array(slaney_filter_bank(n_mels))

    def __call__(self, wave: mx.array) -> mx.array:
        """Return [T, n_mels] for wave [(T - 1) · 160 + 1024] at 16 kHz."""
        frames = mx.as_strided(wave, (1 + (wave.shape[0] - N_FFT) // HOP_16K, N_FFT), (HOP_16K, 1))
        spectrum = mx.fft.rfft(frames * self._window, axis=-1)
        magnitude = mx.sqrt(mx.square(mx.real(spectrum)) + mx.square(mx.imag(spectrum)) + POWER_FLOOR)
        return mx.log(mx.maximum(magnitude @ self._basis.T, LOG_FLOOR))


def pad_frames(mel: mx.array, multiple: int, padding: MelPadding) -> mx.array:
    """Extend log-mel frames [T, M] on the right to a multiple of `multiple`.

    Raises:
        ValueError: too few frames to be reflected.
    """
    frames = mel.shape[0]
    missing = -frames % multiple
    if padding is MelPadding.ZEROS:
        return mx.pad(mel, [(0, missing), (0, 0)])
    if missing >= frames:
        raise ValueError(f"{frames} frames cannot be reflected to {frames + missing}: pad the wave before")
    return mx.concatenate([mel, mel[frames - 1 - missing : frames - 1][::-1]])

"""The log-mel front end of the pitch network in MLX. It runs on the device; it holds tables, no parameters."""

from __future__ import annotations

import mlx.core as mx

from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.mel_basis import LOG_FLOOR, N_FFT, hann_window, mel_filter_bank
from rvc_batch.engine.network_config import HOP_16K

__all__ = ["LogMel", "pad_frames"]


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

"""A backend of plain numpy for tests of the pipeline: right shapes, traceable values, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.network_config import SynthesizerConfig
from rvc_batch.engine.types import F32, SynthesisInputs
from rvc_batch.engine.voice import Voice

RATES = {
    32_000: ((10, 8, 2, 2), (20, 16, 4, 4)),
    40_000: ((10, 10, 2, 2), (16, 16, 4, 4)),
    48_000: ((12, 10, 2, 2), (24, 20, 4, 4)),
}


def fake_voice(sample_rate: int = 40_000, *, has_f0: bool = True, index: Path | None = None) -> Voice:
    """Return a voice of tiny sizes that no file backs."""
    rates, kernels = RATES[sample_rate]
    config = SynthesizerConfig(
        version="v2",
        feature_dim=8,
        has_f0=has_f0,
        sample_rate=sample_rate,
        inter_channels=4,
        hidden_channels=4,
        filter_channels=8,
        n_heads=2,
        n_layers=1,
        kernel_size=3,
        resblock_kernels=(3,),
        resblock_dilations=((1,),),
        upsample_rates=rates,
        upsample_initial_channels=16,
        upsample_kernels=kernels,
        n_speakers=2,
        gin_channels=2,
    )
    return Voice(name="fake", checkpoint=Path("none"), config=config, index=index, sha256="0" * 64)


class NumpyBackend:
    """Content is the level of the wave, f0 a constant, the audio the excitation plus the latent."""

    name = "numpy"
    device = "none"
    networks_sha256 = "0"

    def __init__(self, *, f0_bin: int = 180, level: float = 1.0) -> None:
        self.f0_bin, self.level = f0_bin, level
        self.voice: Voice | None = None
        self.seen: list[SynthesisInputs] = []

    def load_voice(self, voice: Voice) -> None:
        self.voice = voice

    def content(self, wave: F32, *, layer: int, project: bool) -> F32:
        n_frames = (wave.size - 400) // 320 + 1
        level = np.array([np.abs(wave[320 * t : 320 * t + 400]).mean() for t in range(n_frames)], np.float32)
        return np.repeat(level[:, None], 8, axis=1)

    def pitch_salience(self, wave: F32, *, padding: MelPadding) -> F32:
        salience = np.zeros((wave.size // 160 + 1, 360), np.float32)
        salience[:, self.f0_bin] = 1.0
        return salience

    def encode_prior(self, x: SynthesisInputs) -> tuple[F32, F32]:
        self.seen.append(x)
        mean = np.repeat(x.content[:, :1], 4, axis=1)
        return mean, np.full_like(mean, -3.0)

    def decode(self, latent: F32, x: SynthesisInputs) -> F32:
        assert self.voice is not None
        held = np.repeat(latent[:, 0], self.voice.config.hop_samples)
        source = x.source if x.source.size else np.zeros_like(held)
        return (self.level * (0.1 * held + source)).astype(np.float32)

    def memory(self) -> None:
        pass

    def peak_memory(self) -> int:
        return 0

    def release(self) -> None:
        pass

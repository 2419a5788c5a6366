"""A backend of plain numpy for tests of the pipeline: right shapes, traceable values, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.memory import Appetite
from rvc_batch.engine.network_config import HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.precision import FULL
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
    return Voice(name="fake", checkpoint=Path(__file__), config=config, index=index, sha256="0" * 64)


class NumpyBackend:
    """Content is the level of the wave, f0 a constant, the audio the excitation plus the latent."""

    name = "numpy"
    device = "none"
    appetite = Appetite(process=100 << 20, stages=1 << 20, scores=1, content=4, pitch=10, prior=10, decode=200)
    networks_bytes = 0
    precision = FULL
    networks_sha256 = "0"
    content_config = HubertConfig(
        conv_dims=(8,) * 7,
        conv_kernels=(10, 3, 3, 3, 3, 2, 2),
        conv_strides=(5, 2, 2, 2, 2, 2, 2),
        hidden=8,
        ffn=8,
        n_layers=12,
        n_heads=1,
        pos_kernel=128,
        pos_groups=1,
        projection=8,
    )
    pitch_config = RmvpeConfig(
        base_channels=1, n_levels=5, n_blocks=1, n_mid_levels=1, gru_hidden=4, n_gru_layers=1, n_mels=128, n_bins=360
    )

    def __init__(self, *, f0_bin: int = 180, level: float = 1.0) -> None:
        self.f0_bin, self.level = f0_bin, level
        self.voice: Voice | None = None
        self.seen: list[SynthesisInputs] = []
        self.decoded: list[int] = []  # frames of each tile
        self.limited = (0, 0)

    def load_voice(self, voice: Voice) -> None:
        self.voice = voice

    def content(self, wave: F32, *, layer: int, project: bool) -> F32:
        windows = np.lib.stride_tricks.sliding_window_view(np.abs(wave), 400)[::320]
        level = windows.mean(axis=1, dtype=np.float32)
        return np.repeat(level[:, None], 8, axis=1)

    def pitch_salience(self, wave: F32, *, padding: MelPadding) -> F32:
        salience = np.zeros((wave.size // 160 + 1, 360), np.float32)
        salience[:, self.f0_bin] = 1.0
        return salience

    def log_mel(self, wave: F32) -> F32:
        return np.zeros((wave.size // 160 + 1, 128), np.float32)

    def pitch_planes(self, mel: F32) -> F32:
        return np.zeros((mel.shape[0], 3), np.float32)

    def pitch_head(self, planes: F32, state: F32) -> tuple[F32, F32]:
        salience = self.pitch_salience(planes[:0, 0], padding=MelPadding.ZEROS)
        return np.repeat(salience, planes.shape[0], axis=0), np.zeros((planes.shape[0], state.size), np.float32)

    def encode_prior(self, x: SynthesisInputs) -> tuple[F32, F32]:
        self.seen.append(x)
        mean = np.repeat(x.content[:, :1], 4, axis=1)
        return mean, np.full_like(mean, -3.0)

    def decode(self, latent: F32, x: SynthesisInputs) -> F32:
        assert self.voice is not None
        assert latent.shape[0] == x.frames
        self.decoded.append(x.frames)
        held = np.repeat(latent[:, 0], self.voice.config.hop_samples)
        source = x.source if x.source.size else np.zeros_like(held)
        return (self.level * (0.1 * held + source)).astype(np.float32)

    def memory(self) -> None:
        pass

    def peak_memory(self) -> int:
        return 0

    def limit_memory(self, *, cache_bytes: int, voices: int) -> None:
        self.limited = (cache_bytes, voices)

    def release(self) -> None:
        pass

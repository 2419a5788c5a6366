"""What the recipe makes and how long it trains: sizes and steps as data, one row per scale.

`FULL` is what is shipped. `TINY` runs every line of the recipe in seconds and is good for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvc_batch.engine.network_config import HubertConfig, RmvpeConfig

__all__ = ["FULL", "TINY", "Recipe", "VoiceSizes"]

CONV_KERNELS, CONV_STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # HuBERT base


@dataclass(frozen=True)
class VoiceSizes:
    """The synthesiser's widths; the rest is fixed by RVC's layout."""

    inter: int
    hidden: int
    ffn: int
    heads: int
    layers: int
    speaker: int
    upsample_rates: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    initial_channels: int
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Recipe:
    """One complete run. Steps count optimiser steps; seconds are of audio.

    sentences: how many each voice of flite reads. targets: the voices that become RVC voices.
    """

    sentences: dict[str, int]
    targets: tuple[str, ...]
    hubert: HubertConfig
    rmvpe: RmvpeConfig
    voice: VoiceSizes
    content_steps: int
    content_batch: int
    content_seconds: tuple[float, float]
    pitch_steps: int
    pitch_batch: int
    pitch_frames: int
    acoustic_steps: int  # content network, text encoders and flows, against envelopes
    acoustic_batch: int
    acoustic_frames: int  # of content
    vocoder_steps: int  # all of the synthesiser, without discriminators
    gan_steps: int  # all of it, with them; one base for all targets
    tune_steps: int  # then each target by itself
    more_acoustic_steps: int  # if voices are given: content network, text encoders and flows,
    more_quiet_steps: int  # then each voice without discriminators,
    more_gan_steps: int  # and with them
    wave_batch: int
    wave_frames: int  # generated per item
    index_vectors: int
    seed: int = 1
    threads: int = 2
    log_every: int = 20
    save_every_s: float = 120.0


FULL = Recipe(
    sentences={"slt": 1800, "rms": 1800, "awb": 1500, "kal16": 1500},
    targets=("slt", "rms"),
    hubert=HubertConfig(
        conv_dims=(48, 64, 96, 128, 128, 128, 128),
        conv_kernels=CONV_KERNELS,
        conv_strides=CONV_STRIDES,
        hidden=96,
        ffn=192,
        n_layers=12,  # the layer numbers of RVC are those of a network of twelve
        n_heads=4,
        pos_kernel=32,
        pos_groups=4,
        projection=64,
    ),
    rmvpe=RmvpeConfig(
        base_channels=6, n_levels=4, n_blocks=1, n_mid_levels=1, gru_hidden=64, n_gru_layers=1, n_mels=128, n_bins=360
    ),
    voice=VoiceSizes(
        inter=64,
        hidden=64,
        ffn=448,
        heads=2,
        layers=3,
        speaker=16,
        upsample_rates=(8, 5, 4),
        upsample_kernels=(16, 11, 8),  # even differences, as the original program wants them
        initial_channels=160,
        resblock_kernels=(3, 7),
        resblock_dilations=((1, 3), (1, 3)),
    ),
    content_steps=2400,
    content_batch=8,
    content_seconds=(2.0, 5.0),
    pitch_steps=1500,
    pitch_batch=12,
    pitch_frames=128,
    acoustic_steps=4000,
    acoustic_batch=12,
    acoustic_frames=109,
    vocoder_steps=1500,
    gan_steps=2500,
    tune_steps=2900,
    more_acoustic_steps=3600,
    more_quiet_steps=200,
    more_gan_steps=3500,
    wave_batch=8,
    wave_frames=48,
    index_vectors=700,
)

TINY = Recipe(
    sentences={"slt": 6, "rms": 6, "kal16": 4},
    targets=("slt", "rms"),
    hubert=HubertConfig(
        conv_dims=(8, 8, 8, 8, 8, 8, 8),
        conv_kernels=CONV_KERNELS,
        conv_strides=CONV_STRIDES,
        hidden=16,
        ffn=16,
        n_layers=12,
        n_heads=2,
        pos_kernel=8,
        pos_groups=2,
        projection=12,
    ),
    rmvpe=RmvpeConfig(
        base_channels=2, n_levels=2, n_blocks=1, n_mid_levels=1, gru_hidden=8, n_gru_layers=1, n_mels=128, n_bins=360
    ),
    voice=VoiceSizes(
        inter=8,
        hidden=8,
        ffn=16,
        heads=2,
        layers=1,
        speaker=4,
        upsample_rates=(8, 5, 4),
        upsample_kernels=(16, 11, 8),
        initial_channels=16,
        resblock_kernels=(3,),
        resblock_dilations=((1, 3),),
    ),
    content_steps=4,
    content_batch=2,
    content_seconds=(1.0, 1.2),
    pitch_steps=4,
    pitch_batch=2,
    pitch_frames=32,
    acoustic_steps=4,
    acoustic_batch=2,
    acoustic_frames=20,
    vocoder_steps=3,
    gan_steps=3,
    tune_steps=2,
    more_acoustic_steps=2,
    more_quiet_steps=1,
    more_gan_steps=2,
    wave_batch=2,
    wave_frames=20,
    index_vectors=80,
    log_every=2,
)

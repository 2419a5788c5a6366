"""The sizes of the networks: frozen, validated, with their derived quantities.

One dataclass serves both backends and is stored as JSON in the metadata of the canonical checkpoint.
Field names follow the papers; constants that no published checkpoint varies are module constants.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

from rvc_batch.errors import ModelNotRvc

CONTENT_RATE_HZ = 50  # HuBERT frames per second: 16 000 / (5·2·2·2·2·2·2)
FRAME_RATE_HZ = 100  # pitch and synthesiser frames per second
SAMPLE_RATE_16K = 16_000  # what HuBERT and RMVPE were trained on
HOP_16K = SAMPLE_RATE_16K // FRAME_RATE_HZ  # 160 samples

LAYER_NORM_EPS = 1e-5
BATCH_NORM_EPS = 1e-5
RELATIVE_WINDOW = 10  # frames; text encoder's relative attention reaches ±10
N_FLOWS = 4  # coupling layers, each followed by a channel flip
FLOW_LAYERS = 3  # WaveNet layers per coupling
FLOW_KERNEL = 5
DECODER_SLOPE = 0.1  # LeakyReLU inside the generator and after the phone embedding
FINAL_SLOPE = 0.01  # LeakyReLU before conv_post: torch's default slope, not the generator's
PRIOR_NOISE_SCALE = 0.66666
PITCH_CODES = 256
CREPE_FRAME = 1024  # samples that a frame of CREPE sees
CREPE_KERNELS = (512, 64, 64, 64, 64, 64)
CREPE_STRIDES = (4, 1, 1, 1, 1, 1)
CREPE_PADDINGS = ((254, 254), (31, 32), (31, 32), (31, 32), (31, 32), (31, 32))
CREPE_NORM_EPS = 0.0010000000474974513  # float32 of the 1e-3 that it was trained with
HIFIGAN, MRF_HIFIGAN, REFINEGAN = "HiFi-GAN", "MRF HiFi-GAN", "RefineGAN"  # generators, as Applio's voices name them
# sines that a generator is driven by: the fundamental and its overtones
HARMONICS = {HIFIGAN: 1, MRF_HIFIGAN: 9, REFINEGAN: 1}
REFINE_SLOPE = 0.2  # LeakyReLU everywhere in RefineGAN
REFINE_KERNELS = (3, 7, 11)  # its residual blocks, whatever the config says
REFINE_DILATIONS = (1, 3, 5)
FCPE_GROUPS = 4  # of channels that FCPE normalises together, over the whole time


class _Config:
    """JSON round trip shared by the configs."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Build from `to_json` output. A field that has a default may be absent: older checkpoints lack it.

        Raises:
            ModelNotRvc: a field is missing or unknown.
        """
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        names = {f.name for f in fields}
        needed = {f.name for f in fields if f.default is dataclasses.MISSING}
        if not needed <= set(values) <= names:
            raise ModelNotRvc(
                f"{cls.__name__} has the fields {sorted(values)}, expected {sorted(names)}: "
                "the file was imported by another version, import it again"
            )
        return cls(**{k: _tuples(v) for k, v in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class HubertConfig(_Config):
    """HuBERT base / ContentVec (Hsu et al. 2021, Qian et al. 2022)."""

    conv_dims: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    hidden: int
    ffn: int
    n_layers: int
    n_heads: int
    pos_kernel: int
    pos_groups: int
    projection: int

    def __post_init__(self) -> None:
        if not len(self.conv_dims) == len(self.conv_kernels) == len(self.conv_strides):
            raise ModelNotRvc("HuBERT: dims, kernels and strides of the convolutions differ in number")
        if self.hidden % self.n_heads:
            raise ModelNotRvc(f"HuBERT: {self.hidden} channels do not divide into {self.n_heads} heads")
        if math.prod(self.conv_strides) * CONTENT_RATE_HZ != SAMPLE_RATE_16K:
            raise ModelNotRvc(f"HuBERT: strides {self.conv_strides} do not give 50 frames per second")

    def frames(self, n_samples: int) -> int:
        """Return the number of content frames for `n_samples` at 16 kHz (0 if too short)."""
        n = n_samples
        for k, s in zip(self.conv_kernels, self.conv_strides, strict=True):
            n = (n - k) // s + 1
        return max(n, 0)


@dataclass(frozen=True)
class RmvpeConfig(_Config):
    """RMVPE pitch network (Wei et al. 2023): U-Net over log-mel, BiGRU, salience head."""

    base_channels: int  # channels of the first encoder level, doubled at each level
    n_levels: int  # encoder and decoder levels; each halves or doubles both axes
    n_blocks: int  # residual blocks per level
    n_mid_levels: int
    gru_hidden: int
    n_gru_layers: int
    n_mels: int
    n_bins: int

    def __post_init__(self) -> None:
        if self.n_mels % self.frame_multiple:
            raise ModelNotRvc(f"RMVPE: {self.n_mels} mel bands do not halve {self.n_levels} times")
        if self.n_gru_layers != 1:
            raise ModelNotRvc(f"RMVPE has {self.n_gru_layers} GRU layers, the published network has 1")

    @property
    def frame_multiple(self) -> int:
        """Frames are padded to a multiple of this (32 for five levels)."""
        return int(2**self.n_levels)


@dataclass(frozen=True)
class CrepeConfig(_Config):
    """CREPE pitch network (Kim et al. 2018): six convolutions, each halving the time within a frame."""

    channels: tuple[int, ...]
    n_bins: int

    def __post_init__(self) -> None:
        if len(self.channels) != len(CREPE_KERNELS):
            raise ModelNotRvc(f"CREPE has {len(self.channels)} convolutions, the published network has 6")

    @property
    def flat(self) -> int:
        """Values of a frame after the last convolution."""
        return int(self.channels[-1] * CREPE_FRAME // (math.prod(CREPE_STRIDES) * 2 ** len(self.channels)))


@dataclass(frozen=True)
class FcpeConfig(_Config):
    """FCPE pitch network (CNChTu/FCPE): convolutional conformer over log-mel, salience head, no attention."""

    n_mels: int
    hidden: int
    n_layers: int
    inner: int  # channels of the convolution along time in each layer
    kernel: int  # of that convolution, odd, in frames
    n_bins: int
    f0_min: float  # Hz, of the first bin; the bins are even in cents
    f0_max: float  # Hz, of the last

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0 or self.hidden % FCPE_GROUPS:
            raise ModelNotRvc(f"FCPE: kernel {self.kernel} is even, or {self.hidden} channels make no four groups")
        if not 0 < self.f0_min < self.f0_max:
            raise ModelNotRvc(f"FCPE: bins from {self.f0_min:g} to {self.f0_max:g} Hz")


@dataclass(frozen=True)
class SynthesizerConfig(_Config):
    """VITS-style synthesiser of RVC: text encoder, flow, (NSF-)HiFi-GAN generator."""

    version: str  # "v1" | "v2"
    feature_dim: int  # width of the content features (256, 768); read from the tensors
    has_f0: bool
    sample_rate: int  # Hz
    inter_channels: int
    hidden_channels: int
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channels: int
    upsample_kernels: tuple[int, ...]
    n_speakers: int
    gin_channels: int
    vocoder: str = HIFIGAN

    def __post_init__(self) -> None:
        if self.vocoder not in HARMONICS:
            raise ModelNotRvc(f"the vocoder is {self.vocoder!r}, expected {' or '.join(HARMONICS)}")
        if self.vocoder != HIFIGAN and not self.has_f0:
            raise ModelNotRvc(f"the vocoder {self.vocoder} needs f0, and the voice has none")
        if self.is_refinegan and self.upsample_initial_channels != 2 * self.source_channels(0):
            raise ModelNotRvc(
                f"{self.upsample_initial_channels} channels do not halve {len(self.upsample_rates) + 1} times, "
                "as RefineGAN needs it"
            )
        if self.version not in ("v1", "v2"):
            raise ModelNotRvc(f"voice version is {self.version!r}, expected 'v1' or 'v2'")
        if self.hop_samples * FRAME_RATE_HZ != self.sample_rate:
            raise ModelNotRvc(
                f"upsample rates {list(self.upsample_rates)} make {self.hop_samples} samples per frame, "
                f"but {self.sample_rate} Hz at 100 frames per second needs {self.sample_rate / 100:g}"
            )
        if len(self.upsample_rates) != len(self.upsample_kernels):
            raise ModelNotRvc("upsample rates and kernels differ in number")
        if len(self.resblock_kernels) != len(self.resblock_dilations):
            raise ModelNotRvc("residual kernels and dilations differ in number")
        if self.hidden_channels % self.n_heads:
            raise ModelNotRvc(f"{self.hidden_channels} channels do not divide into {self.n_heads} heads")

    @property
    def is_mrf(self) -> bool:
        """Whether the generator is that of MRF HiFi-GAN: more harmonics, and a bias in its last convolution."""
        return self.vocoder == MRF_HIFIGAN

    @property
    def is_refinegan(self) -> bool:
        """Whether the generator is RefineGAN: resampling instead of transposed convolutions, noise in every stage."""
        return self.vocoder == REFINEGAN

    @property
    def n_harmonics(self) -> int:
        """Sines that the generator is driven by."""
        return HARMONICS[self.vocoder]

    @property
    def hop_samples(self) -> int:
        """Output samples per 10 ms frame."""
        return math.prod(self.upsample_rates)

    def stage_channels(self, stage: int) -> int:
        """Return the channels after upsampling stage `stage` (0-based)."""
        return int(self.upsample_initial_channels // 2 ** (stage + 1))

    def source_channels(self, stage: int) -> int:
        """Return the channels of RefineGAN's source where it has the rate that stage `stage` reads (0 = frames)."""
        stages = len(self.upsample_rates)
        return int(self.upsample_initial_channels >> (stages + 1)) << (stages - stage)

    def noise_stride(self, stage: int) -> int:
        """Return source samples per sample of upsampling stage `stage`."""
        return math.prod(self.upsample_rates[stage + 1 :])

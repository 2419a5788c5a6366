"""RMVPE (Wei et al. 2023) in MLX: a U-Net over log-mel, a bidirectional GRU, a salience for 360 pitches.

Planes are [T, M, C]: frames, mel bands, channels. The number of frames must be a multiple of `config.frame_multiple`.
Twin of torch_nets/rmvpe.py. Source: RVC infer/rmvpe.py @ 4338f12.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from rvc_batch.engine.mlx_nets.layers import (
    GRU,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    ReLU,
    conv_norm_relu,
    mean_pool,
)
from rvc_batch.engine.network_config import BATCH_NORM_EPS, RmvpeConfig

__all__ = ["BiGRU", "Decoder", "DecoderLevel", "Encoder", "Intermediate", "Level", "ResidualBlock", "Rmvpe", "UNet"]

CNN_CHANNELS = 3  # planes handed from the U-Net to the GRU


class ResidualBlock(nn.Module):
    """Two convolutions with norm and ReLU, the second ReLU before the shortcut is added."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = [
            Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm2d(out_channels, BATCH_NORM_EPS),
            ReLU(),
            Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm2d(out_channels, BATCH_NORM_EPS),
            ReLU(),
        ]
        self.shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def __call__(self, x: mx.array) -> mx.array:
        y = conv_norm_relu(self.conv[:3], x)
        return conv_norm_relu(self.conv[3:], y, x if self.shortcut is None else self.shortcut(x))


class Level(nn.Module):
    """Residual blocks at one resolution."""

    def __init__(self, in_channels: int, out_channels: int, n_blocks: int) -> None:
        super().__init__()
        self.conv = [ResidualBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(n_blocks)]

    def __call__(self, x: mx.array) -> mx.array:
        for block in self.conv:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Levels of doubling width, each followed by pooling; keeps what each level had before its pooling."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        widths = [1, *(config.base_channels * 2**i for i in range(config.n_levels))]
        self.bn = BatchNorm2d(1, BATCH_NORM_EPS)
        self.layers = [Level(widths[i], widths[i + 1], config.n_blocks) for i in range(config.n_levels)]

    def __call__(self, x: mx.array) -> tuple[mx.array, list[mx.array]]:
        x = self.bn(x)
        skips = []
        for level in self.layers:
            x = level(x)
            skips.append(x)
            x = mean_pool(x)
        return x, skips


class Intermediate(nn.Module):
    """Levels at the coarsest resolution, twice as wide as the last of the encoder."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        width = config.base_channels * 2**config.n_levels
        self.layers = [
            Level(width // 2 if i == 0 else width, width, config.n_blocks) for i in range(config.n_mid_levels)
        ]

    def __call__(self, x: mx.array) -> mx.array:
        for level in self.layers:
            x = level(x)
        return x


class DecoderLevel(nn.Module):
    """Upsample both axes by two, append the skip connection, run residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, n_blocks: int) -> None:
        super().__init__()
        self.conv1 = [
            ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False),
            BatchNorm2d(out_channels, BATCH_NORM_EPS),
            ReLU(),
        ]
        self.conv2 = [
            ResidualBlock(2 * out_channels if i == 0 else out_channels, out_channels) for i in range(n_blocks)
        ]

    def __call__(self, x: mx.array, skip: mx.array) -> mx.array:
        x = mx.concatenate([conv_norm_relu(self.conv1, x), skip], axis=-1)
        for block in self.conv2:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Levels of halving width back to full resolution."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        widths = [config.base_channels * 2**i for i in range(config.n_levels, -1, -1)]
        self.layers = [DecoderLevel(widths[i], widths[i + 1], config.n_blocks) for i in range(config.n_levels)]

    def __call__(self, x: mx.array, skips: list[mx.array]) -> mx.array:
        for level, skip in zip(self.layers, reversed(skips), strict=True):
            x = level(x, skip)
        return x


class UNet(nn.Module):
    """[T, M, 1] → [T, M, base channels]."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.intermediate = Intermediate(config)
        self.decoder = Decoder(config)

    def __call__(self, x: mx.array) -> mx.array:
        x, skips = self.encoder(x)
        return self.decoder(self.intermediate(x), skips)


class BiGRU(nn.Module):
    """[T, D] → [T, 2·H], in both directions."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        self.gru = GRU(CNN_CHANNELS * config.n_mels, config.gru_hidden, config.n_gru_layers)

    def __call__(self, x: mx.array, state: mx.array | None = None) -> mx.array:
        return self.gru(x, state)


class Rmvpe(nn.Module):
    """Log-mel [T, M] → salience [T, bins] in 0–1; T a multiple of `config.frame_multiple`."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        self.unet = UNet(config)
        self.cnn = Conv2d(config.base_channels, CNN_CHANNELS, 3, padding=1)
        self.fc = [BiGRU(config), Linear(2 * config.gru_hidden, config.n_bins)]

    def __call__(self, mel: mx.array) -> mx.array:
        return self.salience(self.recurrent(self.planes(mel)))

    def planes(self, mel: mx.array) -> mx.array:
        """Return what the GRU hears, [T, 3·M]: three planes laid side by side, channel by channel."""
        return _side_by_side(self.cnn(self.unet(mel[:, :, None])))

    def recurrent(self, planes: mx.array, state: mx.array | None = None) -> mx.array:
        """Run the GRU over planes [T, 3·M] from the forward state [H], None for zeros; returns [T, 2·H]."""
        y: mx.array = self.fc[0](planes, state)
        return y

    def salience(self, x: mx.array) -> mx.array:
        """Return the salience [T, bins] for GRU states [T, 2·H]."""
        return mx.sigmoid(self.fc[1](x))

    def stages(self, mel: mx.array) -> dict[str, mx.array]:
        """Return what `__call__` passes through, by name: bottom, unet, cnn, gru."""
        bottom, skips = self.unet.encoder(mel[:, :, None])
        plane = self.unet.decoder(self.unet.intermediate(bottom), skips)
        planes = self.cnn(plane)
        return {"bottom": bottom, "unet": plane, "cnn": planes, "gru": self.recurrent(_side_by_side(planes))}


def _side_by_side(planes: mx.array) -> mx.array:
    """[T, M, 3] → [T, 3·M]."""
    return planes.swapaxes(1, 2).reshape(planes.shape[0], -1)

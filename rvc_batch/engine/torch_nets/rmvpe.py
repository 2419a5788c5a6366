"""RMVPE (Wei et al. 2023) in torch: a U-Net over log-mel, a bidirectional GRU, a salience for 360 pitches.

Planes are [1, C, T, M]: channels, frames, mel bands. The number of frames must be a multiple of
`config.frame_multiple`. Twin of mlx_nets/rmvpe.py. Source: RVC infer/rmvpe.py @ 4338f12.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_batch.engine.network_config import BATCH_NORM_EPS, RmvpeConfig
from rvc_batch.engine.torch_nets.layers import (
    GRU,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    ReLU,
    conv_norm_relu,
    mean_pool,
)

__all__ = ["BiGRU", "Decoder", "DecoderLevel", "Encoder", "Intermediate", "Level", "ResidualBlock", "Rmvpe", "UNet"]

CNN_CHANNELS = 3  # planes handed from the U-Net to the GRU


class ResidualBlock(nn.Module):
    """Two convolutions with norm and ReLU, the second ReLU before the shortcut is added."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm2d(out_channels, BATCH_NORM_EPS),
            ReLU(),
            Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm2d(out_channels, BATCH_NORM_EPS),
            ReLU(),
        )
        self.shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = conv_norm_relu(list(self.conv)[:3], x)
        return conv_norm_relu(list(self.conv)[3:], y, x if self.shortcut is None else self.shortcut(x))


class Level(nn.Module):
    """Residual blocks at one resolution."""

    def __init__(self, in_channels: int, out_channels: int, n_blocks: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList(
            ResidualBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(n_blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.conv:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Levels of doubling width, each followed by pooling; keeps what each level had before its pooling."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        widths = [1, *(config.base_channels * 2**i for i in range(config.n_levels))]
        self.bn = BatchNorm2d(1, BATCH_NORM_EPS)
        self.layers = nn.ModuleList(Level(widths[i], widths[i + 1], config.n_blocks) for i in range(config.n_levels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
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
        self.layers = nn.ModuleList(
            Level(width // 2 if i == 0 else width, width, config.n_blocks) for i in range(config.n_mid_levels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in self.layers:
            x = level(x)
        return x


class DecoderLevel(nn.Module):
    """Upsample both axes by two, append the skip connection, run residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, n_blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False),
            BatchNorm2d(out_channels, BATCH_NORM_EPS),
            ReLU(),
        )
        self.conv2 = nn.ModuleList(
            ResidualBlock(2 * out_channels if i == 0 else out_channels, out_channels) for i in range(n_blocks)
        )

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = torch.cat([conv_norm_relu(list(self.conv1), x), skip], dim=1)
        for block in self.conv2:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Levels of halving width back to full resolution."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        widths = [config.base_channels * 2**i for i in range(config.n_levels, -1, -1)]
        self.layers = nn.ModuleList(
            DecoderLevel(widths[i], widths[i + 1], config.n_blocks) for i in range(config.n_levels)
        )

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        for level, skip in zip(self.layers, reversed(skips), strict=True):
            x = level(x, skip)
        return x


class UNet(nn.Module):
    """[1, 1, T, M] → [1, base channels, T, M]."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.intermediate = Intermediate(config)
        self.decoder = Decoder(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, skips = self.encoder(x)
        y: torch.Tensor = self.decoder(self.intermediate(x), skips)
        return y


class BiGRU(nn.Module):
    """[1, T, D] → [1, T, 2·H], in both directions."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        inputs = CNN_CHANNELS * config.n_mels
        self.gru = GRU(inputs, config.gru_hidden, config.n_gru_layers, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        both = None if state is None else torch.stack([state, torch.zeros_like(state)])[:, None]
        y: torch.Tensor = self.gru(x, both)[0]
        return y


class Rmvpe(nn.Module):
    """Log-mel [T, M] → salience [T, bins] in 0–1; T a multiple of `config.frame_multiple`."""

    def __init__(self, config: RmvpeConfig) -> None:
        super().__init__()
        self.unet = UNet(config)
        self.cnn = Conv2d(config.base_channels, CNN_CHANNELS, 3, padding=1)
        self.fc = nn.ModuleList([BiGRU(config), Linear(2 * config.gru_hidden, config.n_bins)])

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return self.salience(self.recurrent(self.planes(mel)))[0]

    def planes(self, mel: torch.Tensor) -> torch.Tensor:
        """Return what the GRU hears, [1, T, 3·M]: three planes laid side by side, channel by channel."""
        return _side_by_side(self.cnn(self.unet(mel[None, None])))

    def recurrent(self, planes: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        """Run the GRU over planes [1, T, 3·M] from the forward state [H], None for zeros; returns [1, T, 2·H]."""
        y: torch.Tensor = self.fc[0](planes, state)
        return y

    def salience(self, x: torch.Tensor) -> torch.Tensor:
        """Return the salience [1, T, bins] for GRU states [1, T, 2·H]."""
        return torch.sigmoid(self.fc[1](x))

    def stages(self, mel: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what `forward` passes through, by name: bottom, unet, cnn [1, C, T, M], gru [1, T, 2·H]."""
        bottom, skips = self.unet.encoder(mel[None, None])
        plane = self.unet.decoder(self.unet.intermediate(bottom), skips)
        planes = self.cnn(plane)
        return {"bottom": bottom, "unet": plane, "cnn": planes, "gru": self.recurrent(_side_by_side(planes))}


def _side_by_side(planes: torch.Tensor) -> torch.Tensor:
    """[1, 3, T, M] → [1, T, 3·M]."""
    return planes.transpose(1, 2).flatten(2)

"""Two families of small discriminators: the wave folded by periods, and spectra at several resolutions.

Source: Kong et al. 2020 (HiFi-GAN, multi-period); Jang et al. 2021 (UnivNet, multi-resolution); both much narrower
here.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from tools.demo_voices.losses import magnitude

__all__ = ["Discriminators"]

PERIODS = (2, 3, 5, 7, 11)
PERIOD_CHANNELS = (8, 24, 48, 64)
SPECTRA = ((512, 128, 512), (1024, 160, 640))
SPECTRUM_CHANNELS = 12
SLOPE = 0.1


class Discriminators(nn.Module):
    """All of them side by side: wave [B, N] → a score map of each, and what each saw inside."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([_Period(p) for p in PERIODS] + [_Spectrum(*s) for s in SPECTRA])

    def forward(self, wave: torch.Tensor) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
        scores, insides = zip(*(member(wave) for member in self.members), strict=True)
        return list(scores), list(insides)


class _Period(nn.Module):
    def __init__(self, period: int) -> None:
        super().__init__()
        widths = (1, *PERIOD_CHANNELS)
        self.period = period
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(widths[i], widths[i + 1], (5, 1), (3, 1), (2, 0)))
            for i in range(len(PERIOD_CHANNELS))
        )
        self.post = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, wave: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        padded = functional.pad(wave, (0, -wave.shape[1] % self.period))
        return _through(self.convs, self.post, padded.reshape(wave.shape[0], 1, -1, self.period))


class _Spectrum(nn.Module):
    def __init__(self, size: int, hop: int, window: int) -> None:
        super().__init__()
        c = SPECTRUM_CHANNELS
        self.resolution = (size, hop, window)
        shapes = ((1, c, (3, 5), (1, 2)), (c, c, (3, 5), (1, 2)), (c, c, (3, 5), (1, 2)), (c, c, (3, 3), (1, 1)))
        self.convs = nn.ModuleList(weight_norm(nn.Conv2d(i, o, k, s, (k[0] // 2, k[1] // 2))) for i, o, k, s in shapes)
        self.post = weight_norm(nn.Conv2d(c, 1, (3, 3), 1, 1))

    def forward(self, wave: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = torch.log(magnitude(wave, *self.resolution)).transpose(1, 2)[:, None]
        return _through(self.convs, self.post, x)


def _through(convs: nn.ModuleList, post: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    insides = []
    for conv in convs:
        x = functional.leaky_relu(conv(x), SLOPE)
        insides.append(x)
    return post(x), insides

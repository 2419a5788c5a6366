"""Standard normal noise as a function of key, place and position, made where it is used, in torch.

RefineGAN takes in more noise than there is audio, by hundreds: as an input it would be larger than all the rest.
Bits come from a hash of 32 bits (lowbias32 of C. Wellons' hash-prospector, public domain), the same in both backends.
Twin of mlx_nets/position_noise.py. See docs/decisions/0012-refinegan.md.
"""

from __future__ import annotations

import math

import torch

__all__ = ["normal_noise"]

GOLDEN = 0x9E3779B9  # 2³² / golden ratio: spreads small numbers over all bits
WORD = 0xFFFFFFFF  # torch multiplies no unsigned words: int64, of which the low half counts


def normal_noise(key: torch.Tensor, place: int, first: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Return noise [T, C] in float32 for rows first … first + T; key and first are int64 scalars, modulo 2³²."""
    rows, channels = shape
    own = _mixed((key + place * GOLDEN) & WORD)
    row = _mixed(((first + torch.arange(rows)) & WORD) ^ own)
    column = torch.arange(channels) * GOLDEN
    bits = _mixed((row[:, None] + column) & WORD)
    # 23 bits, moved by a half: exact in float32 and never ±1
    even = ((bits >> 9).to(torch.float32) + 0.5) * 2.0**-22 - 1.0
    return torch.erfinv(even) * math.sqrt(2.0)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & WORD
    x = ((x ^ (x >> 15)) * 0xD35A2D97) & WORD
    return x ^ (x >> 15)

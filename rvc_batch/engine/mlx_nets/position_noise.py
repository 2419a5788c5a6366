"""Standard normal noise as a function of key, place and position, made where it is used, in MLX.

RefineGAN takes in more noise than there is audio, by hundreds: as an input it would be larger than all the rest.
Bits come from a hash of 32 bits (lowbias32 of C. Wellons' hash-prospector, public domain), the same in both backends.
Twin of torch_nets/position_noise.py. See docs/decisions/0012-refinegan.md.
"""

from __future__ import annotations

import math

import mlx.core as mx

__all__ = ["normal_noise"]

GOLDEN = 0x9E3779B9  # 2³² / golden ratio: spreads small numbers over all bits


def normal_noise(key: mx.array, place: int, first: mx.array, shape: tuple[int, int]) -> mx.array:
    """Return noise [T, C] in float32 for rows first … first + T; key and first are uint32 scalars, modulo 2³²."""
    rows, channels = shape
    own = _mixed(key + mx.array(place * GOLDEN & 0xFFFFFFFF, mx.uint32))
    row = _mixed((first + mx.arange(rows, dtype=mx.uint32)) ^ own)
    column = mx.arange(channels, dtype=mx.uint32) * mx.array(GOLDEN, mx.uint32)
    bits = _mixed(row[:, None] + column)
    # 23 bits, moved by a half: exact in float32 and never ±1
    even = ((bits >> 9).astype(mx.float32) + 0.5) * 2.0**-22 - 1.0
    return mx.erfinv(even) * math.sqrt(2.0)


def _mixed(x: mx.array) -> mx.array:
    x = (x ^ (x >> 16)) * mx.array(0x21F0AAAD, mx.uint32)
    x = (x ^ (x >> 15)) * mx.array(0xD35A2D97, mx.uint32)
    return x ^ (x >> 15)

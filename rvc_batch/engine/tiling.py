"""How far the convolutional stages reach, and the tiles that follow from it.

A tile is rendered from its own frames plus a halo of context on each side, and the context is dropped. With a halo no
shorter than the reach, what is kept equals the untiled result up to rounding. The reach follows from kernels, strides
and dilations alone; it is never tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rvc_batch.engine.decimation import decimation_reach
from rvc_batch.engine.network_config import (
    FLOW_KERNEL,
    FLOW_LAYERS,
    N_FLOWS,
    REFINE_DILATIONS,
    REFINE_KERNELS,
    RmvpeConfig,
    SynthesizerConfig,
)

FLOW_REACH = N_FLOWS * FLOW_LAYERS * (FLOW_KERNEL - 1) // 2  # frames, both sides
PRE_REACH = 7 // 2  # conv_pre, in frames; all of RefineGAN's convolutions outside of its residual blocks
POST_REACH = 7 // 2  # conv_post, in output samples
SHAPE_STEP = 32  # frames


@dataclass(frozen=True)
class WorkSizes:
    """How much is computed at once; bounds memory and changes what comes out by no more than rounding.

    tile_frames: kept frames per tile of flow and generator. pitch_tile_frames: kept per tile of the pitch network's
    convolutions, a multiple of 32.
    """

    tile_frames: int = 1_000
    pitch_tile_frames: int = 8_192


@dataclass(frozen=True)
class Halo:
    """Frames of context that a tile needs before and after what it keeps."""

    before: int
    after: int


@dataclass(frozen=True)
class Tile:
    """Frames first:last are read, keep_first:keep_last of them are kept; all counted in the segment."""

    first: int
    last: int
    keep_first: int
    keep_last: int


def tiles(start: int, stop: int, total: int, size: int, halo: Halo) -> Iterator[Tile]:
    """Cover frames start:stop of a segment of `total` frames by tiles that keep at most `size` frames each.

    Where the segment is long enough all tiles read the same number of frames: the last one begins earlier than it must.
    Kernels and cached buffers then exist for one shape, not for every length.
    """
    span = size + halo.before + halo.after
    for keep_first in range(start, stop, size):
        first = max(min(keep_first - halo.before, total - span), 0)
        yield Tile(
            first=first,
            last=min(first + span, total),
            keep_first=keep_first,
            keep_last=min(keep_first + size, stop),
        )


def few_lengths(frames: int) -> int:
    """Round a number of frames up to one of few: to a multiple of 32, from 512 on by a sixteenth at most."""
    step = max(SHAPE_STEP, 1 << max((frames - 1).bit_length() - 5, 0))
    return -(-frames // step) * step


def synthesis_tiles(start: int, stop: int, total: int, size: int, halo: Halo) -> Iterator[Tile]:
    """Cover frames start:stop of a segment of `total` frames by tiles of one shape, out of few shapes for all segments.

    The tiles keep equal parts, at most `size` frames each, and read a number of frames that `few_lengths` gives. Where
    a segment is shorter than that, its tile reaches beyond its end, at most to `few_lengths(total)`: what lies there is
    nobody's context as long as the segment's own context is as long as the halo. Where that is shorter, the tile ends
    with the segment, whatever its shape.
    """
    n_tiles = -(-(stop - start) // size)
    kept = -(-(stop - start) // n_tiles)
    span = few_lengths(min(kept + halo.before + halo.after, total))
    if stop + halo.after > total:
        span = min(span, total)
    for keep_first in range(start, stop, kept):
        first = max(min(keep_first - halo.before, total - span), 0)
        yield Tile(first, first + span, keep_first, min(keep_first + kept, stop))


def synthesis_halo(config: SynthesizerConfig) -> Halo:
    """Return the reach of flow and generator together."""
    generator = generator_halo(config)
    return Halo(generator.before + FLOW_REACH, generator.after + FLOW_REACH)


def generator_halo(config: SynthesizerConfig) -> Halo:
    """Return the reach of the generator, in whole frames.

    Walks from one frame of output back to the input: what interval of each stage does it depend on?
    """
    if config.is_refinegan:
        return _refinegan_halo(config)
    first, last = -POST_REACH, config.hop_samples - 1 + POST_REACH
    source_first, source_last = 0, config.hop_samples - 1
    for stage in reversed(range(len(config.upsample_rates))):
        reach = _residual_reach(config)
        first, last = first - reach, last + reach
        if config.has_f0:
            low, high = _noise_interval(config, stage, first, last)
            source_first, source_last = min(source_first, low), max(source_last, high)
        rate, kernel = config.upsample_rates[stage], config.upsample_kernels[stage]
        pad = (kernel - rate + 1) // 2  # with output_padding (kernel − rate) % 2
        # a transposed convolution writes input l to outputs l·rate − pad … l·rate − pad + kernel − 1
        first, last = -(-(first + pad - kernel + 1) // rate), (last + pad) // rate
    hop = config.hop_samples
    first = min(first - PRE_REACH, source_first // hop)
    last = max(last + PRE_REACH, source_last // hop)
    return Halo(before=-first, after=last)


def _refinegan_halo(config: SynthesizerConfig) -> Halo:
    """Return the reach of RefineGAN: back through the stages to the frames, then back through the source to its start.

    Every interval counts samples at the rate of its stage, from the first sample of one frame.
    """
    first, last = -POST_REACH, config.hop_samples - 1 + POST_REACH
    reach = PRE_REACH + max(_block_reach(kernel, REFINE_DILATIONS) for kernel in REFINE_KERNELS)
    joined = []  # what each stage reads of the source
    for rate in reversed(config.upsample_rates):
        first, last = first - reach, last + reach
        joined.append((first, last))
        # stretched sample n lies between the rows ⌊(n + ½) / rate − ½⌋ and the next
        first, last = (2 * first + 1 - rate) // (2 * rate), (2 * last + 1 - rate) // (2 * rate) + 1
    before, after = -(first - PRE_REACH), last + PRE_REACH  # of the latent
    for rate, (join_first, join_last) in zip(config.upsample_rates, reversed(joined), strict=True):
        first, last = first - PRE_REACH, last + PRE_REACH
        low_pass = decimation_reach(rate)
        first, last = first * rate - low_pass, last * rate + low_pass + rate - 1
        first, last = min(first, join_first), max(last, join_last)
    hop = config.hop_samples
    first, last = (first - PRE_REACH) // hop, (last + PRE_REACH) // hop
    return Halo(before=max(before, -first), after=max(after, last))


def _residual_reach(config: SynthesizerConfig) -> int:
    """Return the reach of the widest residual block."""
    blocks = zip(config.resblock_kernels, config.resblock_dilations, strict=True)
    return max(_block_reach(kernel, dilations) for kernel, dilations in blocks)


def _block_reach(kernel: int, dilations: tuple[int, ...]) -> int:
    """Return the reach of a residual block: each dilation is followed by an undilated convolution."""
    return sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations)


def _noise_interval(config: SynthesizerConfig, stage: int, first: int, last: int) -> tuple[int, int]:
    """Return which source samples the outputs first … last of a stage's noise convolution depend on."""
    stride = config.noise_stride(stage)
    if stride == 1:
        return first, last
    return first * stride - stride // 2, last * stride - stride // 2 + 2 * stride - 1


def pitch_halo(config: RmvpeConfig) -> Halo:
    """Return the reach of the pitch network's convolutions, in frames rounded up to whole coarsest cells.

    Windows start at multiples of `config.frame_multiple`, so that pooling falls on the same pairs of frames.
    """
    first, last = pitch_reach(config)
    cell = config.frame_multiple
    return Halo(before=-(first // cell) * cell, after=-(-(last + 1 - cell) // cell) * cell)


def pitch_reach(config: RmvpeConfig) -> tuple[int, int]:
    """Return the first and last mel frame that the frames of one coarsest cell depend on, relative to it.

    Walks the U-Net backwards; a level's skip connection reads its encoder at the same resolution.
    """
    blocks = 2 * config.n_blocks  # two 3 × 3 convolutions each, one frame of reach per convolution
    first, last = -1, config.frame_multiple - 1 + 1  # cnn, 3 × 3
    skips = []
    for _ in range(config.n_levels):
        first, last = first - blocks, last + blocks
        skips.append((first, last))
        # transposed 3 × 3, stride 2, padding 1: output t reads inputs ⌈(t − 1) / 2⌉ … ⌊(t + 1) / 2⌋
        first, last = first // 2, (last + 1) // 2
    first, last = first - blocks * config.n_mid_levels, last + blocks * config.n_mid_levels
    for skip_first, skip_last in reversed(skips):
        first, last = min(2 * first, skip_first), max(2 * last + 1, skip_last)
        first, last = first - blocks, last + blocks
    return first, last

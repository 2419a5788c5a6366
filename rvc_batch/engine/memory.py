"""How much is computed at once, so that a conversion stays below a memory limit.

The limit drives tile sizes and the cache of the device, never what the networks are shown as a whole: cut points are a
matter of the audio alone, so the content network's longest segment is the least that any limit must leave room for.
The numbers per frame are measured by `benchmarks/memory_model.py` and kept honest by a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rvc_batch.engine.dialect import Dialect
from rvc_batch.engine.network_config import HOP_16K, HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.tiling import WorkSizes, few_lengths, pitch_halo, synthesis_halo
from rvc_batch.errors import SettingsInvalid

FLOAT_BYTES = 4
UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 1 << 20, "GIB": 1 << 30}

DEFAULT_WORK_BYTES = 1_400 << 20  # about a thousand frames of a published voice; narrow ones get longer tiles
TILE_RANGE = (64, 4_096)  # frames kept
PITCH_TILE_RANGE = (256, 8_192)
CACHE_RANGE = (32 << 20, 512 << 20)  # bytes of freed buffers kept for reuse
CACHE_SHARE = 4  # of what the networks may use, one part in so many


@dataclass(frozen=True)
class Widths:
    """Bytes per 10 ms frame of the widest activation of each stage."""

    content: int
    pitch: int
    prior: int
    decode: int
    content_heads: int
    prior_heads: int

    @classmethod
    def of(cls, content: HubertConfig, pitch: RmvpeConfig, voice: SynthesizerConfig) -> Widths:
        """Derive them from the sizes of the networks."""
        rate, generator = 1, 0
        for stage, factor in enumerate(voice.upsample_rates):
            rate *= factor
            joined = voice.source_channels(stage + 1) if voice.is_refinegan else 0  # kept from the way down
            generator = max(generator, rate * (voice.stage_channels(stage) + joined))
        return cls(
            content=FLOAT_BYTES * content.conv_dims[0] * HOP_16K // content.conv_strides[0],
            pitch=FLOAT_BYTES * pitch.base_channels * pitch.n_mels,
            prior=FLOAT_BYTES * voice.filter_channels,
            decode=FLOAT_BYTES * generator,
            content_heads=content.n_heads,
            prior_heads=voice.n_heads,
        )


@dataclass(frozen=True)
class Appetite:
    """What a backend needs beside its networks, measured: `benchmarks/results/memory-model-*.json`.

    process: bytes of the process without networks. stages: bytes that do not depend on the length. scores: how many
    matrices of attention weights, all heads, are kept. content, pitch, prior, decode: peak in units of the widest
    activation.
    """

    process: int
    stages: int
    scores: float
    content: float
    pitch: float
    prior: float
    decode: float


@dataclass(frozen=True)
class Plan:
    """What follows from a limit."""

    sizes: WorkSizes
    cache_bytes: int


@dataclass(frozen=True)
class Needs:
    """What one voice on one backend needs.

    loaded: bytes of networks and index. rate: of the voice, in Hz. harmonics: of its source. longest: frames of the
    longest segment, context included.
    """

    appetite: Appetite
    widths: Widths
    loaded: int
    rate: int
    harmonics: int
    longest: int
    tile_halo: int
    pitch_halo: int

    @classmethod
    def of(
        cls,
        appetite: Appetite,
        content: HubertConfig,
        pitch: RmvpeConfig,
        voice: SynthesizerConfig,
        *,
        loaded: int,
        rules: Dialect,
    ) -> Needs:
        """Gather them; `loaded` as the field."""
        tile, window = synthesis_halo(voice), pitch_halo(pitch)
        return cls(
            appetite=appetite,
            widths=Widths.of(content, pitch, voice),
            loaded=loaded,
            rate=voice.sample_rate,
            harmonics=voice.n_harmonics,
            longest=longest_segment(rules) // HOP_16K,
            tile_halo=tile.before + tile.after,
            pitch_halo=window.before + window.after,
        )

    def fixed(self) -> int:
        """Return what is there whatever is computed: process, networks, and the arrays of a segment in numpy."""
        # excitation: six float64 arrays while it is made, and noise and result of every harmonic in float32
        doubles = 6 + (self.harmonics if self.harmonics > 1 else 0)
        segment = doubles * 8 * self.longest * self.rate // 100
        return self.appetite.process + self.loaded + segment

    def whole(self) -> int:
        """Return the peak of the stages that see the longest segment at once."""
        return max(self.content(self.longest), self.prior(few_lengths(self.longest)))

    def content(self, frames: int) -> int:
        """Return the peak of the content network."""
        scores = self.appetite.scores * FLOAT_BYTES * self.widths.content_heads * (frames // 2) ** 2
        return self._stage(self.appetite.content * self.widths.content, frames) + int(scores)

    def prior(self, frames: int) -> int:
        """Return the peak of the text encoder."""
        scores = self.appetite.scores * FLOAT_BYTES * self.widths.prior_heads * frames**2
        return self._stage(self.appetite.prior * self.widths.prior, frames) + int(scores)

    def tile(self, frames: int) -> int:
        """Return the peak of one tile that keeps `frames` frames."""
        return self._stage(self.appetite.decode * self.widths.decode, few_lengths(frames + self.tile_halo))

    def pitch_tile(self, frames: int) -> int:
        """Return the peak of one tile of the pitch network."""
        return self._stage(self.appetite.pitch * self.widths.pitch, frames + self.pitch_halo)

    def _stage(self, bytes_per_frame: float, frames: int) -> int:
        return self.appetite.stages + int(bytes_per_frame * frames)

    def least(self) -> int:
        """Return the smallest limit that works."""
        work = max(self.whole(), self.tile(TILE_RANGE[0]), self.pitch_tile(PITCH_TILE_RANGE[0]))
        return self.fixed() + work + max(CACHE_RANGE[0], -(-work // (CACHE_SHARE - 1)))


def plan_memory(limit: int | None, needs: Needs) -> Plan:
    """Choose sizes below `limit` bytes of resident memory; None means the default sizes.

    Raises:
        SettingsInvalid: the limit is below what the networks need; says the least that works.
    """
    if limit is None:
        tile = _greatest(TILE_RANGE, 16, lambda frames: needs.tile(frames) <= DEFAULT_WORK_BYTES)
        return Plan(WorkSizes(tile_frames=tile, pitch_tile_frames=PITCH_TILE_RANGE[1]), CACHE_RANGE[1])
    least = needs.least()
    if limit < least:
        raise SettingsInvalid(
            f"memory_limit is {limit / 1e9:.2f} GB, but these networks need {least / 1e9:.2f} GB at least; raise "
            "it, or remove it to take the default sizes"
        )
    left = limit - needs.fixed()
    cache = min(max(left // CACHE_SHARE, CACHE_RANGE[0]), CACHE_RANGE[1])
    work = left - cache
    tile = _greatest(TILE_RANGE, 16, lambda frames: needs.tile(frames) <= work)
    pitch_tile = _greatest(PITCH_TILE_RANGE, 32, lambda frames: needs.pitch_tile(frames) <= work)
    return Plan(WorkSizes(tile_frames=tile, pitch_tile_frames=pitch_tile), cache)


def longest_segment(rules: Dialect) -> int:
    """Return the samples of the longest segment that the cut rule can make, context included."""
    return max(rules.longest, rules.centre + 2 * rules.query) + 2 * rules.pad + 2 * HOP_16K


def parse_size(text: str) -> int:
    """Return the bytes of "1500 MB", "2 GB", "1.5 GiB".

    Raises:
        SettingsInvalid: it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(MB|GB|MiB|GiB)\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise SettingsInvalid(f"memory_limit is {text!r}, expected a size such as '1500 MB' or '2 GB'")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _greatest(span: tuple[int, int], step: int, fits: Callable[[int], bool]) -> int:
    """Return the greatest multiple of `step` in `span` that fits, the smallest if none does."""
    low, high = span
    return next((n for n in range(high, low, -step) if fits(n)), low)

"""Everything random or periodic that a synthesiser is fed: noise by position, the prior's sample, the source.

Noise is a pure function of (seed, stream, position): each fixed block is drawn from its own Philox counter, so the
audio depends neither on segment or tile borders nor on the backend. The phase of the sine is a running sum in
float64 over the whole file; a segment reads its slice. Nothing here knows about networks or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from rvc_batch.engine.types import F32, F64, PitchTrack

SINE_AMPLITUDE = 0.1  # RVC infer/module/models.py SineGen @ 4338f12
VOICED_NOISE = 0.003
UNVOICED_NOISE = SINE_AMPLITUDE / 3

PRIOR_BLOCK_FRAMES = 128
SOURCE_BLOCK_SAMPLES = 16_384


class NoiseStream(IntEnum):
    """Independent noises of one conversion."""

    PRIOR = 0
    SOURCE = 1
    PHASES = 2
    STAGES = 3


def prior_noise(seed: int, start: int, frames: int, channels: int) -> F32:
    """Return standard normal noise [frames, channels] for absolute frames start … start + frames."""
    return _blocks(seed, NoiseStream.PRIOR, start, frames, PRIOR_BLOCK_FRAMES, (channels,))


def source_noise(seed: int, start: int, samples: int, harmonics: int = 1) -> F32:
    """Return standard normal noise for absolute output samples start … start + samples: [samples], [samples, H]."""
    shape = () if harmonics == 1 else (harmonics,)
    return _blocks(seed, NoiseStream.SOURCE, start, samples, SOURCE_BLOCK_SAMPLES, shape)


def first_phases(seed: int, harmonics: int) -> F64:
    """Return where each harmonic begins, in cycles, [H]: the fundamental at 0, its overtones anywhere, once per file.

    Applio draws them anew at each call, that is for each piece of a file (hifigan_mrf.py SineGenerator @ 0f98c61).
    """
    drawn = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, int(NoiseStream.PHASES), 0]))
    phases = drawn.random(harmonics)
    phases[0] = 0.0
    return phases


def stage_noise_key(seed: int) -> int:
    """Return what the noise inside of RefineGAN's stages is keyed with, 32 bits."""
    drawn = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, int(NoiseStream.STAGES), 0]))
    return int(drawn.integers(1 << 32))


def sample_prior(mean: F32, log_std: F32, noise: F32, scale: float, mask: F32) -> F32:
    """Return mask · (mean + exp(log_std) · noise · scale), [T, C].

    Source: RVC infer/module/models.py SynthesizerTrnMs768NSFsid.infer @ 4338f12 (scale 0.66666).
    """
    latent: F32 = (mean + np.exp(log_std) * noise * np.float32(scale)) * mask[:, None]
    return latent


def _blocks(seed: int, stream: NoiseStream, start: int, count: int, block: int, shape: tuple[int, ...]) -> F32:
    if start < 0:
        raise ValueError(f"noise is asked for at position {start}; positions start at 0")
    out = np.empty((count, *shape), np.float32)
    for index in range(start // block, -(-(start + count) // block)):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, int(stream), index]))
        drawn = generator.standard_normal((block, *shape), dtype=np.float32)
        first = max(start, index * block)
        last = min(start + count, (index + 1) * block)
        out[first - start : last - start] = drawn[first - index * block : last - index * block]
    return out


@dataclass(frozen=True)
class HarmonicPhase:
    """The phase of the fundamental, in cycles, at the first sample of each frame of a pitch track.

    Each frame's f0 is held for all its samples, or glides in a line from the middle of one frame to that of the next
    (`is_gliding`: RefineGAN); the phase of sample n is the sum of f0 / rate up to and including n (RVC
    infer/module/models.py SineGen @ 4338f12, Applio refinegan_legacy.py @ 4eace3d; upstream sums in float32, this sums
    in float64).
    """

    pitch: PitchTrack
    sample_rate: int
    hop_samples: int
    cycles: F64  # [T]; kept modulo 1
    is_gliding: bool = False

    @classmethod
    def of(cls, pitch: PitchTrack, sample_rate: int, hop_samples: int, *, is_gliding: bool = False) -> HarmonicPhase:
        """Accumulate the phase over the whole track."""
        f0 = pitch.f0.astype(np.float64)
        if is_gliding and pitch.frames:
            f0 = _neighbours(f0) @ _glide(hop_samples).mean(axis=1)
        per_frame = f0 * hop_samples / sample_rate
        before = np.concatenate(([0.0], np.cumsum(per_frame)[:-1])) if pitch.frames else np.zeros(0)
        return cls(pitch, sample_rate, hop_samples, np.mod(before, 1.0), is_gliding)

    def source(self, start: int, frames: int, noise: F32, noise_scale: float = 1.0, phases: F64 | None = None) -> F32:
        """Return sine plus noise [frames · hop] for frames start … start + frames, [frames · hop, H] for H harmonics.

        Args:
            noise: standard normal, of the shape of the result.
            noise_scale: 1 = the published amplitudes (0.003 voiced, 0.1 / 3 unvoiced), 0 = none.
            phases: where each harmonic begins, in cycles, [H]; None is the fundamental alone.
        """
        if noise.ndim == 1:
            return self._harmonic(start, frames, noise, noise_scale, 1, 0.0)
        assert phases is not None
        out = np.empty_like(noise)
        for i, phase in enumerate(phases):
            out[:, i] = self._harmonic(start, frames, noise[:, i], noise_scale, i + 1, float(phase))
        return out

    def _harmonic(self, start: int, frames: int, noise: F32, noise_scale: float, multiple: int, phase: float) -> F32:
        before = self.cycles[start : start + frames, None]
        f0 = self.pitch.f0[max(start - 1, 0) : start + frames + 1].astype(np.float64)
        if self.is_gliding:
            own = _neighbours(f0)[min(start, 1) :][:frames] @ _glide(self.hop_samples)
            cycles = before + np.cumsum(own, axis=1) / self.sample_rate
        else:
            own = f0[min(start, 1) :][:frames, None]
            cycles = before + own / self.sample_rate * np.arange(1, self.hop_samples + 1, dtype=np.float64)
        is_voiced = own > 0
        cycles = np.mod(multiple * cycles + phase, 1.0)
        sine = np.where(is_voiced, SINE_AMPLITUDE * np.sin(2 * np.pi * cycles), 0.0)
        amplitude = np.where(is_voiced, VOICED_NOISE, UNVOICED_NOISE) * noise_scale
        out: F32 = (sine + amplitude * noise.reshape(frames, self.hop_samples)).astype(np.float32)
        return out.reshape(-1)


def _neighbours(f0: F64) -> F64:
    """Return f0 of the frame before, of the frame itself and of the one after, [T, 3]; the ends repeat themselves."""
    padded = np.concatenate([f0[:1], f0, f0[-1:]])
    return np.stack([padded[:-2], padded[1:-1], padded[2:]], axis=1)


def _glide(hop: int) -> F64:
    """Return how much each of three neighbours counts at the samples of a frame, [3, hop]."""
    from_middle = (np.arange(hop) + 0.5) / hop - 0.5  # in frames, −½ … ½
    before, after = np.maximum(-from_middle, 0.0), np.maximum(from_middle, 0.0)
    return np.stack([before, 1.0 - before - after, after])

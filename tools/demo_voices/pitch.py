"""The pitch network: RMVPE's architecture, small, trained on the corpus and on synthetic tones, in noise and rooms.

Speech gets its labels from `tracker` while it is clean. Tones have theirs by construction and cover 50 to 1100 Hz,
where speech alone would not. The network is trained through a fixed offset of its logits, so that the fixed voicing
threshold of RVC (0.03) is a chance of VOICED_FROM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.pitch import CENTS_OF_BIN_0, CENTS_PER_BIN, N_BINS, REFERENCE_HZ, VOICING_THRESHOLD
from rvc_batch.engine.torch_nets.mel import LogMel
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from tools.demo_voices.augment import disturb, resample
from tools.demo_voices.corpus import Corpus
from tools.demo_voices.device import on_device
from tools.demo_voices.loop import Stage, rate_at, run_stage, set_rate
from tools.demo_voices.settings import Recipe
from tools.demo_voices.tracker import track_f0

__all__ = ["label_corpus", "salience_logits", "target", "tone", "train_pitch", "voicing_offset"]

F32 = NDArray[np.float32]

PEAK_RATE = 2e-3
TONE_SHARE = 0.35
TONE_HZ = (50.0, 1100.0)
MAX_HARMONICS, TOP_HZ = 40, 7600.0
BLUR_CENTS = 25.0
VOICED_FROM = 0.22  # chance; less than one half, as voice without its sine turns to noise
SPEED = (0.6, 2.2)
VOICED_WEIGHT = 4.0  # of the bins near a pitch, against the many that are empty


def label_corpus(corpus: Corpus, state: Path) -> dict[str, list[F32]]:
    """Track f0 of every utterance, by voice, in the order of the corpus; kept in the state folder."""
    labels = {}
    for voice, utterances in corpus.by_voice.items():
        kept = state / "corpus" / f"{voice}.f0.npz"
        if not kept.is_file():
            bar = tqdm(utterances, desc=f"f0 {voice}", unit="sentence", mininterval=5)
            tracks = {str(i): track_f0(utterance.wave) for i, utterance in enumerate(bar)}
            unfinished = kept.with_suffix(".part.npz")
            np.savez(unfinished, **tracks)
            unfinished.replace(kept)
        with np.load(kept) as stored:
            labels[voice] = [stored[str(i)] for i in range(len(utterances))]
    return labels


def train_pitch(recipe: Recipe, corpus: Corpus, labels: dict[str, list[F32]], stage: Stage) -> Rmvpe:
    """Train the network, or go on; returns it in evaluation mode."""
    torch.manual_seed(recipe.seed)
    network = Rmvpe(recipe.rmvpe)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    log_mel, offset = LogMel(), voicing_offset()

    def step(number: int, random: np.random.Generator) -> Mapping[str, float]:
        set_rate(optimiser, rate_at(number, recipe.pitch_steps, PEAK_RATE))
        items = [_item(recipe, corpus, labels, random) for _ in range(recipe.pitch_batch)]
        mel = np.stack([log_mel(torch.from_numpy(wave))[: recipe.pitch_frames].numpy() for wave, _ in items])
        wanted = on_device(np.stack([target(f0) for _, f0 in items]))
        logits = salience_logits(network, on_device(mel)) - offset
        weight = 1.0 + VOICED_WEIGHT * (wanted > 0.05).float()
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="none")
        loss = losses.sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimiser.step()
        return {"loss": loss.item(), **_figures(logits.detach().cpu(), items)}

    run_stage(stage, {"network": network, "optimiser": optimiser}, step)
    return network.eval()


def salience_logits(network: Rmvpe, mel: torch.Tensor) -> torch.Tensor:
    """Return logits [B, T, bins] for log-mel [B, T, M]: the network's forward before its sigmoid, for batches."""
    planes = network.cnn(network.unet(mel[:, None]))
    logits: torch.Tensor = network.fc[1](network.fc[0](planes.transpose(1, 2).flatten(2)))
    return logits


def voicing_offset() -> float:
    """Return what is taken off every logit before it is trained to be a chance."""
    return float(logit(VOICING_THRESHOLD) - logit(VOICED_FROM))


def target(f0: F32) -> F32:
    """Return the wanted salience [T, 360] for f0 [T]: a bell around the pitch, nothing where unvoiced."""
    cents = 1200 * np.log2(np.where(f0 > 0, f0, REFERENCE_HZ) / REFERENCE_HZ)
    bins = CENTS_OF_BIN_0 + CENTS_PER_BIN * np.arange(N_BINS)
    bell = np.exp(-((bins[None] - cents[:, None]) ** 2) / (2 * BLUR_CENTS**2))
    wanted: F32 = np.where(f0[:, None] > 0, bell, 0.0).astype(np.float32)
    return wanted


def tone(frames: int, random: np.random.Generator) -> tuple[F32, F32]:
    """Return a gliding harmonic tone [frames · 160] with silences, and its f0 [frames], 0 where silent."""
    points = random.integers(2, 6)
    octaves = random.uniform(*np.log2(TONE_HZ)) + np.cumsum(random.normal(0, 0.25, points))
    samples = frames * HOP_16K
    contour = np.interp(np.linspace(0, points - 1, samples), np.arange(points), octaves)
    seconds = np.arange(samples) / SAMPLE_RATE_16K
    contour += random.choice((0.0, 0.02)) * np.sin(2 * np.pi * random.uniform(4, 7) * seconds)  # octaves of vibrato
    f0 = 2.0 ** contour.clip(*np.log2(TONE_HZ))
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE_16K
    tilt, formants = random.uniform(0.3, 1.6), random.uniform(200, 3500, 3)
    wave, coarse = np.zeros(samples), np.arange(0, samples, HOP_16K)
    for harmonic in range(1, 1 + min(MAX_HARMONICS, int(TOP_HZ / f0.min()))):
        at_hz = harmonic * f0[coarse]
        bands = np.exp(-(((at_hz[:, None] - formants) / 250.0) ** 2)).sum(axis=1)
        gain = np.where(at_hz < TOP_HZ, harmonic**-tilt * (0.15 + bands), 0.0)  # smooth: often enough once per frame
        wave += np.interp(np.arange(samples), coarse, gain) * np.sin(harmonic * phase + random.uniform(0, 2 * np.pi))
    wave /= np.abs(wave).max()
    is_voiced = np.ones(frames, bool)
    for _ in range(random.integers(0, 4)):
        start = random.integers(frames)
        is_voiced[start : start + random.integers(4, 25)] = False
    sound = np.repeat(is_voiced, HOP_16K)
    hiss = random.choice((0.0, 0.1)) * random.standard_normal(samples)  # unvoiced stretches may be loud
    heard = np.where(sound, wave, hiss).astype(np.float32)
    middle = np.arange(frames) * HOP_16K  # a frame of the log-mel is centred on its first sample
    return heard, np.where(is_voiced, f0[middle], 0.0).astype(np.float32)


def _item(recipe: Recipe, corpus: Corpus, labels: dict[str, list[F32]], random: np.random.Generator) -> tuple[F32, F32]:
    """Return a disturbed wave and the f0 of its frames."""
    frames = recipe.pitch_frames
    if random.random() < TONE_SHARE:
        wave, f0 = tone(frames, random)
        return disturb(wave, random), f0
    voices = list(corpus.by_voice)
    voice = voices[random.integers(len(voices))]
    place = int(random.integers(len(corpus.by_voice[voice])))
    wave, f0 = corpus.by_voice[voice][place].wave, labels[voice][place]
    factor = float(np.exp(random.uniform(*np.log(SPEED)))) if random.random() < 0.6 else 1.0
    needed = math.ceil(frames * factor) + 1
    start = int(random.integers(max(1, f0.size - needed)))
    piece = resample(wave[start * HOP_16K : (start + needed) * HOP_16K], factor)[: frames * HOP_16K]
    piece = np.pad(piece, (0, frames * HOP_16K - piece.size))
    moments = start + np.arange(frames) * factor
    nearest = np.round(moments).astype(np.int64)
    track = np.where(nearest < f0.size, f0[nearest.clip(0, f0.size - 1)], 0.0)
    low = np.floor(moments).astype(np.int64).clip(0, f0.size - 1)
    high = (low + 1).clip(0, f0.size - 1)
    between = np.where((f0[low] > 0) & (f0[high] > 0), f0[low] + (moments - low) * (f0[high] - f0[low]), track)
    return disturb(piece, random), (np.where(track > 0, between, 0.0) * factor).astype(np.float32)


def _figures(logits: torch.Tensor, items: list[tuple[F32, F32]]) -> dict[str, float]:
    """Return how often voicing is right, and the mean distance in cents where both are voiced (octave errors count)."""
    truth = np.stack([f0 for _, f0 in items])
    best = logits.max(-1)
    is_voiced, is_true = best.values.numpy() > 0, truth > 0
    both = is_voiced & is_true
    cents = CENTS_OF_BIN_0 + CENTS_PER_BIN * best.indices.numpy()
    wanted = 1200 * np.log2(np.where(is_true, truth, REFERENCE_HZ) / REFERENCE_HZ)
    wrong = np.abs(cents - wanted)[both]
    return {"voicing": float(np.mean(is_voiced == is_true)), "gross": float(np.mean(wrong > 50)) if both.any() else 1.0}

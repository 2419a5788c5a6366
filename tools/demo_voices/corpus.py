"""The speech that everything is trained on: every voice reads the same sentences, most of them in several styles.

It lies in the state folder in chunks, each written when it is whole, so that an interrupted run goes on with what is
missing. The audio stays memory-mapped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tools.demo_voices.sentences import compose
from tools.demo_voices.settings import Recipe
from tools.demo_voices.speech import RATE_HZ, SpeechFailed, Spoken, Style, speak

__all__ = ["Corpus", "Utterance", "build_corpus"]

logger = logging.getLogger(__name__)

PLAIN_SHARE = 0.5  # of the sentences are read as the voice reads them by itself
STRETCH = (0.8, 1.3)
F0_FACTOR = (0.75, 1.35)
MAX_FAILED_SHARE = 0.05
CHUNK = 50  # sentences per file: what an interruption may cost


@dataclass(frozen=True)
class Utterance:
    """One sentence of the corpus. text: place in the list of sentences, the same for every voice."""

    voice: str
    text: int
    style: Style
    spoken: Spoken

    @property
    def is_plain(self) -> bool:
        """Whether it is read as the voice reads by itself."""
        return self.style == Style()

    @property
    def wave(self) -> NDArray[np.float32]:
        """The audio [N] in ±1."""
        return self.spoken.wave.astype(np.float32) / np.float32(32768.0)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.spoken.wave.size / RATE_HZ

    def phone_at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return which of its phones sounds at each time (s), and how far that phone is gone (0–1)."""
        ends = self.spoken.ends.astype(np.float64)
        starts = np.concatenate(([0.0], ends[:-1]))
        place = np.searchsorted(ends, times, side="right").clip(0, ends.size - 1)
        gone = (times - starts[place]) / np.maximum(ends[place] - starts[place], 1e-3)
        return place, gone.clip(0.0, 1.0 - 1e-9)

    def moments_in(self, other: Utterance, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return when (s) another utterance of the same phones says what this one says at each time (s)."""
        place, gone = self.phone_at(times)
        ends = other.spoken.ends.astype(np.float64)
        starts = np.concatenate(([0.0], ends[:-1]))
        moments: NDArray[np.float64] = starts[place] + gone * (ends[place] - starts[place])
        return moments


class Corpus:
    """All utterances, by voice."""

    def __init__(self, folder: Path, sentences: dict[str, int]) -> None:
        self.by_voice = {voice: list(_load(folder, voice, count)) for voice, count in sentences.items()}

    def __iter__(self) -> Iterator[Utterance]:
        for utterances in self.by_voice.values():
            yield from utterances


def build_corpus(recipe: Recipe, state: Path) -> Corpus:
    """Let every voice read its sentences, unless that was done before.

    Raises:
        FliteMissing: flite is not installed; nothing is written, so that the next run reads all.
        SpeechFailed: more than one sentence in twenty cannot be read.
    """
    folder = state / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    sentences = compose(max(recipe.sentences.values()), recipe.seed)
    for place, (voice, count) in enumerate(recipe.sentences.items()):
        _record(folder, voice, sentences[:count], np.random.default_rng((recipe.seed, place)), recipe.threads)
    return Corpus(folder, recipe.sentences)


def _record(folder: Path, voice: str, sentences: list[str], random: np.random.Generator, threads: int) -> None:
    plain = random.random(len(sentences)) < PLAIN_SHARE
    varied = zip(random.uniform(*STRETCH, len(sentences)), random.uniform(*F0_FACTOR, len(sentences)), strict=True)
    styles = [Style() if p else Style(float(s), float(f)) for p, (s, f) in zip(plain, varied, strict=True)]
    read = 0
    with ThreadPoolExecutor(threads) as pool, tqdm(desc=f"speech {voice}", total=len(sentences), unit="s.") as bar:
        for first in range(0, len(sentences), CHUNK):
            part = _part(folder, voice, first)
            if not part.is_file():
                chunk = range(first, min(first + CHUNK, len(sentences)))
                spoken = pool.map(lambda text: _attempt(voice, sentences[text], styles[text]), chunk)
                _write(part, [(text, styles[text], s) for text, s in zip(chunk, spoken, strict=True) if s])
            read += len(json.loads(part.read_text(encoding="utf-8")))
            bar.update(min(CHUNK, len(sentences) - first))
    if read < (1 - MAX_FAILED_SHARE) * len(sentences):
        raise SpeechFailed(f"{voice} read only {read} of {len(sentences)} sentences; see the log")


def _part(folder: Path, voice: str, first: int) -> Path:
    return folder / f"{voice}-{first:05}.json"


def _write(part: Path, spoken: list[tuple[int, Style, Spoken]]) -> None:
    """Write the audio of a chunk, then what was said in it; the second file says that the first is whole."""
    waves = [s.wave for *_, s in spoken]
    np.save(part.with_suffix(".npy"), np.concatenate(waves) if waves else np.zeros(0, np.int16))
    records, position = [], 0
    for text, style, said in spoken:
        records.append(
            {
                "text": text,
                "stretch": style.stretch,
                "f0_factor": style.f0_factor,
                "start": position,
                "stop": position + said.wave.size,
                "phones": said.phones.tolist(),
                "ends": [round(float(t), 4) for t in said.ends],
            }
        )
        position += said.wave.size
    unfinished = part.with_suffix(".part")
    unfinished.write_text(json.dumps(records), encoding="utf-8")
    unfinished.replace(part)


def _attempt(voice: str, text: str, style: Style) -> Spoken | None:
    try:
        return speak(voice, text, style)
    except SpeechFailed as e:
        logger.warning("%s", e)
        return None


def _load(folder: Path, voice: str, count: int) -> Iterator[Utterance]:
    for first in range(0, count, CHUNK):
        part = _part(folder, voice, first)
        audio = np.load(part.with_suffix(".npy"), mmap_mode="r")
        for record in json.loads(part.read_text(encoding="utf-8")):
            phones, ends = np.array(record["phones"], np.int16), np.array(record["ends"], np.float32)
            spoken = Spoken(audio[record["start"] : record["stop"]], phones, ends)
            style = Style(record["stretch"], record["f0_factor"])
            yield Utterance(voice, record["text"], style, spoken)

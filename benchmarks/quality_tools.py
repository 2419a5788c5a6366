#!/usr/bin/env python3
"""Measure speech with tools that know nothing of this project: speaker, words, pitch, spectrum, gaps.

    build/quality-venv/bin/python benchmarks/quality_tools.py < request.json > result.json

Runs in an environment of its own (benchmarks/quality-requirements.txt), because its tools pin what the project does
not; `quality.py` calls it. The request is {"files": [...], "pairs": [...]}: each file {"path", "text" or null} is
embedded and its words are recognised; each pair {"source", "output", "parallel" or null, "semitones"} is compared.
Audio is 16 kHz mono.
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/, whose queue.py would hide the standard library's

import jiwer  # noqa: E402
import librosa  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from pocketsphinx import Decoder  # noqa: E402
from resemblyzer import VoiceEncoder, preprocess_wav  # noqa: E402
from tqdm import tqdm  # noqa: E402

F32 = NDArray[np.float32]

RATE_HZ = 16_000
FRAME = 800  # samples, 50 ms
SPEECH_DB, SILENCE_DB = -40.0, -60.0
N_CEPSTRA, N_BANDS = 13, 40
FCPE_THRESHOLD = 0.006


class Measures:
    """The tools, loaded once."""

    def __init__(self) -> None:
        self._speaker = VoiceEncoder("cpu", verbose=False)
        self._words = Decoder(samprate=RATE_HZ, loglevel="FATAL")
        self._pitch = _fcpe()

    def embedding(self, path: str) -> list[float]:
        """Return the speaker embedding of a file (unit length)."""
        return [float(x) for x in self._speaker.embed_utterance(preprocess_wav(Path(path)))]

    def words(self, path: str, text: str) -> dict[str, Any]:
        """Return what is heard in a file, the number of word errors against its text, and of the text's words."""
        self._words.start_utt()
        pcm = (read(path) * 32767).clip(-32768, 32767).astype("<i2").tobytes()
        self._words.process_raw(pcm, no_search=False, full_utt=True)
        self._words.end_utt()
        hypothesis = self._words.hyp()
        heard = plain(hypothesis.hypstr if hypothesis else "")
        found = jiwer.process_words(plain(text), heard or "-")
        return {
            "heard": heard,
            "errors": found.substitutions + found.deletions + found.insertions,
            "words": len(plain(text).split()),
        }

    def f0(self, wave: F32) -> F32:
        """Return FCPE's f0 in Hz, 0 where unvoiced, 100 frames per second."""
        import torch

        with torch.inference_mode():
            track = self._pitch.infer(
                torch.from_numpy(wave)[None, :, None],
                sr=RATE_HZ,
                decoder_mode="local_argmax",
                threshold=FCPE_THRESHOLD,
                f0_min=50,
                f0_max=1100,
                interp_uv=False,
            )
        return track[0, :, 0].numpy()

    def pair(self, source: str, output: str, parallel: str | None, semitones: float) -> dict[str, Any]:
        """Compare a conversion with its source, and with the target voice reading the same sentence."""
        before, after = read(source), read(output)
        f0_before, f0_after = self.f0(before), self.f0(after)
        frames = min(f0_before.size, f0_after.size)
        wanted, got = f0_before[:frames] * 2 ** (semitones / 12), f0_after[:frames]
        both = (wanted > 0) & (got > 0)
        cents = 1200 * np.abs(np.log2(got[both] / wanted[both])) if both.any() else np.array([np.inf])
        return {
            "median_cents": float(np.median(cents)),
            "voicing_agreement": float(np.mean((wanted > 0) == (got > 0))),
            "peak": float(np.abs(after).max()),
            "gap_frames": gaps(before, after),
            "mcd_db": None if parallel is None else mel_cepstral_distance(after, read(parallel)),
            "mcd_source_db": None if parallel is None else mel_cepstral_distance(before, read(parallel)),
        }


def read(path: str) -> F32:
    """Return a 16 kHz mono file."""
    wave, rate = soundfile.read(path, dtype="float32")
    if rate != RATE_HZ or wave.ndim != 1:
        raise SystemExit(f"{path} has {rate} Hz and {wave.ndim} axes, expected {RATE_HZ} Hz mono")
    return wave


def plain(text: str) -> str:
    """Return lower-case words without punctuation."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def gaps(before: F32, after: F32) -> int:
    """Return the number of 50 ms frames that are speech in the source and silence in the output."""
    frames = min(before.size, after.size) // FRAME
    levels = [
        20 * np.log10(np.sqrt(np.mean(x[: frames * FRAME].reshape(frames, FRAME) ** 2, axis=1)) + 1e-9)
        for x in (before, after)
    ]
    return int(np.sum((levels[0] > SPEECH_DB) & (levels[1] < SILENCE_DB)))


def mel_cepstral_distance(a: F32, b: F32) -> float:
    """Return the mean distance in dB of mel cepstra 1–13 along the best alignment in time, loudness left out.

    Source: Kubichek 1993. Its 10 / ln 10 · √(2 Σ Δc²) is the root mean square of the spectral difference in dB; the
    cepstra here are an orthonormal transform of M bands in dB, so it is their distance over √M.
    """
    first, second = (
        librosa.feature.mfcc(
            y=x, sr=RATE_HZ, n_mfcc=N_CEPSTRA + 1, n_fft=1024, hop_length=160, n_mels=N_BANDS, fmin=50
        )[1:]
        for x in (a, b)
    )
    distances = np.sqrt(((first[:, :, None] - second[:, None, :]) ** 2).sum(axis=0))
    _, path = librosa.sequence.dtw(C=distances)
    return float(np.sqrt(1 / N_BANDS) * np.mean([distances[i, j] for i, j in path]))


def _fcpe() -> Any:
    """Load FCPE with its bundled weights; torchaudio, which it imports only to resample, is stood in for."""
    stand_in, transforms = types.ModuleType("torchaudio"), types.ModuleType("torchaudio.transforms")
    transforms.Resample = None  # type: ignore[attr-defined]
    stand_in.transforms = transforms  # type: ignore[attr-defined]
    sys.modules.setdefault("torchaudio", stand_in)
    sys.modules.setdefault("torchaudio.transforms", transforms)
    from torchfcpe import spawn_bundled_infer_model

    return spawn_bundled_infer_model(device="cpu")


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    stdout, sys.stdout = sys.stdout, sys.stderr  # the tools print
    measures = Measures()
    files = {}
    for file in tqdm(request["files"], desc="files", file=sys.stderr):
        files[file["path"]] = {"embedding": measures.embedding(file["path"])}
        if file["text"] is not None:
            files[file["path"]] |= measures.words(file["path"], file["text"])
    pairs = [
        {**pair, **measures.pair(pair["source"], pair["output"], pair["parallel"], pair["semitones"])}
        for pair in tqdm(request["pairs"], desc="pairs", file=sys.stderr)
    ]
    json.dump({"files": files, "pairs": pairs}, stdout)


if __name__ == "__main__":
    main()

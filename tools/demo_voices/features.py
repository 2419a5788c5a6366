"""What a voice is trained from: content features and f0 of every sentence, by the networks that will serve it.

The waves are padded as the engine pads them, so that what training sees is what inference will give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.network_config import FRAME_RATE_HZ, HOP_16K
from rvc_batch.engine.pitch import decode_salience
from rvc_batch.engine.torch_nets.hubert import Hubert
from rvc_batch.engine.torch_nets.mel import LogMel, pad_frames
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from tools.demo_voices.content import frame_times
from tools.demo_voices.corpus import Corpus, Utterance
from tools.demo_voices.device import on_device

__all__ = ["between", "extract_content", "extract_f0", "warped"]

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
PAD = RVC_2023.pad  # samples of reflection on each side
FIRST = PAD // HOP_16K  # frame that is not padding

Kind = TypeVar("Kind", bound=np.generic)


def extract_f0(corpus: Corpus, rmvpe: Rmvpe, multiple: int, voices: Iterable[str], state: Path) -> dict[str, list[F32]]:
    """Return f0 [T100] in Hz, 0 where unvoiced, of every utterance of some voices, by voice; kept in the state folder.

    multiple: of frames, which the pitch network wants.
    """
    return {voice: _kept(corpus, voice, "pitch", state, lambda wave: _f0(wave, rmvpe, multiple)) for voice in voices}


def extract_content(corpus: Corpus, hubert: Hubert, state: Path) -> dict[str, list[F16]]:
    """Return content features [T50, D] of every utterance, by voice; kept in the state folder."""
    return {
        voice: _kept(corpus, voice, "features", state, lambda wave: _content(wave, hubert)) for voice in corpus.by_voice
    }


def warped(target: Utterance, other: Utterance, content: F16, frames: int) -> F32:
    """Return [frames, D]: the other's content, moved to where the target says the same part of the same phone.

    Both must say the same phones.
    """
    moments = target.moments_in(other, frame_times(frames))
    return between(content, (moments - frame_times(1)[0]) * (FRAME_RATE_HZ / 2))


def between(rows: F16, places: NDArray[np.float64]) -> F32:
    """Return what lies at each place, counted in rows [T, D] and any fraction, on the line between two; [places, D]."""
    low = np.floor(places).astype(np.int64).clip(0, rows.shape[0] - 1)
    high = (low + 1).clip(0, rows.shape[0] - 1)
    share = (places - low).clip(0, 1)[:, None].astype(np.float32)
    mixed: F32 = rows[low].astype(np.float32) * (1 - share) + rows[high].astype(np.float32) * share
    return mixed


def hubert_depth(hubert: Hubert) -> int:
    """Return the number of its last layer, which v2 voices read."""
    return len(hubert.encoder.layers)


def _kept(
    corpus: Corpus, voice: str, name: str, state: Path, make: Callable[[F32], NDArray[Kind]]
) -> list[NDArray[Kind]]:
    """Return what is made of every utterance of a voice, in the order of the corpus, making it only once."""
    path, utterances = state / "corpus" / f"{voice}.{name}.npz", corpus.by_voice[voice]
    if not path.is_file():
        bar = tqdm(utterances, desc=f"{name} {voice}", unit="sentence", mininterval=5)
        arrays = {str(i): make(utterance.wave) for i, utterance in enumerate(bar)}
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        unfinished.replace(path)
    with np.load(path) as stored:
        return [stored[str(i)] for i in range(len(utterances))]


@torch.inference_mode()
def _content(wave: F32, hubert: Hubert) -> F16:
    padded = on_device(np.pad(wave, PAD, mode="reflect"))
    content = hubert(padded, layer=hubert_depth(hubert), project=False)[0].cpu().numpy()
    frames = wave.size // HOP_16K
    kept: F16 = content[FIRST // 2 : FIRST // 2 + (frames + 1) // 2].astype(np.float16)
    return kept


@torch.inference_mode()
def _f0(wave: F32, rmvpe: Rmvpe, multiple: int) -> F32:
    mel = LogMel()(torch.from_numpy(np.pad(wave, PAD, mode="reflect")))
    frames = pad_frames(mel, multiple, RVC_2023.mel_padding).numpy()
    salience = rmvpe(on_device(frames))[: mel.shape[0]].cpu().numpy()
    return decode_salience(salience).f0[FIRST : FIRST + wave.size // HOP_16K]

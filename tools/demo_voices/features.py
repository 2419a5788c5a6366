"""What a voice is trained from: content features and f0 of every sentence, by the networks that will serve it.

The waves are padded as the engine pads them, so that what training sees is what inference will give.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

__all__ = ["Features", "extract", "warped"]

F32 = NDArray[np.float32]
PAD = RVC_2023.pad  # samples of reflection on each side
PAD_S = PAD / 16_000


@dataclass(frozen=True)
class Features:
    """Of one utterance. content: [T50, D] float16 · f0: [T100] Hz, 0 where unvoiced."""

    content: NDArray[np.float16]
    f0: F32


def extract(corpus: Corpus, hubert: Hubert, rmvpe: Rmvpe, multiple: int, state: Path) -> dict[str, list[Features]]:
    """Return features of every utterance, by voice, in the order of the corpus; kept in the state folder.

    multiple: of frames, which the pitch network wants.
    """
    found = {}
    for voice, utterances in corpus.by_voice.items():
        kept = state / "corpus" / f"{voice}.features.npz"
        if not kept.is_file():
            arrays = {}
            for i, utterance in enumerate(tqdm(utterances, desc=f"features {voice}", unit="sentence", mininterval=5)):
                features = _features(utterance.wave, hubert, rmvpe, multiple)
                arrays[f"content{i}"], arrays[f"f0_{i}"] = features.content, features.f0
            unfinished = kept.with_suffix(".part.npz")
            np.savez(unfinished, **arrays)
            unfinished.replace(kept)
        with np.load(kept) as stored:
            found[voice] = [Features(stored[f"content{i}"], stored[f"f0_{i}"]) for i in range(len(utterances))]
    return found


@torch.inference_mode()
def _features(wave: F32, hubert: Hubert, rmvpe: Rmvpe, multiple: int) -> Features:
    padded = np.pad(wave, PAD, mode="reflect")
    content = hubert(on_device(padded), layer=hubert_depth(hubert), project=False)[0].cpu().numpy()
    first = int(PAD_S * FRAME_RATE_HZ)
    mel = LogMel()(torch.from_numpy(padded))
    salience = rmvpe(on_device(pad_frames(mel, multiple, RVC_2023.mel_padding).numpy()))[: mel.shape[0]].cpu().numpy()
    frames = wave.size // HOP_16K
    f0 = decode_salience(salience).f0[first : first + frames]
    return Features(content[first // 2 : first // 2 + (frames + 1) // 2].astype(np.float16), f0)


def hubert_depth(hubert: Hubert) -> int:
    """Return the number of its last layer, which v2 voices read."""
    return len(hubert.encoder.layers)


def warped(target: Utterance, other: Utterance, content: NDArray[np.float16], frames: int) -> F32:
    """Return [frames, D]: the other's content, moved to where the target says the same part of the same phone.

    Both must say the same phones.
    """
    place, gone = target.phone_at(frame_times(frames))
    ends = other.spoken.ends.astype(np.float64)
    starts = np.concatenate(([0.0], ends[:-1]))
    moments = starts[place] + gone * (ends[place] - starts[place])
    exact = (moments - frame_times(1)[0]) * (FRAME_RATE_HZ / 2)
    low = np.floor(exact).astype(np.int64).clip(0, content.shape[0] - 1)
    high = (low + 1).clip(0, content.shape[0] - 1)
    share = (exact - low).clip(0, 1)[:, None].astype(np.float32)
    moved: F32 = content[low].astype(np.float32) * (1 - share) + content[high].astype(np.float32) * share
    return moved

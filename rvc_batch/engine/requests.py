"""What a backend may be asked: the checks both share, and inputs to try one with. No framework in here."""

from __future__ import annotations

import numpy as np

from rvc_batch.engine.network_config import HubertConfig, SynthesizerConfig
from rvc_batch.engine.types import F32, SynthesisInputs
from rvc_batch.errors import SettingsInvalid


def check_content_request(wave: F32, layer: int, config: HubertConfig) -> None:
    """Refuse what the content network cannot answer.

    Raises:
        ValueError: the wave is too short for one frame, or there is no such layer.
    """
    if not 1 <= layer <= config.n_layers:
        raise ValueError(f"content layer is {layer}, expected 1 to {config.n_layers}")
    if config.frames(wave.size) == 0:
        raise ValueError(f"the wave has {wave.size} samples, too few for one content frame: pad it before")


def check_synthesis_inputs(x: SynthesisInputs, config: SynthesizerConfig) -> None:
    """Refuse inputs made for another voice.

    Raises:
        SettingsInvalid: the voice has no such speaker.
        ValueError: width of the content, presence of the pitch code or length of the source do not fit the voice.
    """
    if not 0 <= x.speaker < config.n_speakers:
        raise SettingsInvalid(f"speaker is {x.speaker}, the voice has speakers 0 to {config.n_speakers - 1}")
    if x.content.shape[1] != config.feature_dim:
        raise ValueError(f"content features are {x.content.shape[1]} wide, the voice expects {config.feature_dim}")
    codes, samples = (x.frames, x.frames * config.hop_samples) if config.has_f0 else (0, 0)
    harmonics = x.source.size // max(x.source.shape[0], 1)
    if (x.coarse.size, x.source.shape[0]) != (codes, samples) or (samples and harmonics != config.n_harmonics):
        raise ValueError(
            f"{x.coarse.size} pitch codes and {x.source.shape[0]} source samples of {harmonics} harmonics for "
            f"{x.frames} frames, the voice expects {codes} and {samples} of {config.n_harmonics}"
        )


def silent_inputs(config: SynthesizerConfig, frames: int) -> SynthesisInputs:
    """Return inputs of that many silent frames for a voice."""
    voiced = frames if config.has_f0 else 0
    source = np.zeros((voiced * config.hop_samples, config.n_harmonics), np.float32)
    return SynthesisInputs(
        content=np.zeros((frames, config.feature_dim), np.float32),
        coarse=np.ones(voiced, np.int64),
        source=source[:, 0] if config.n_harmonics == 1 else source,
        speaker=0,
        valid=frames,
    )

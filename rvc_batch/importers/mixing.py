"""Mix two voices of one architecture into a new one, tensor by tensor, in float32.

As upstream: what is stored is mixed, so gain and direction of weight norm each for themselves, and the new voice has
the smaller number of speakers. A weight that is stored folded is split as torch's `weight_norm` splits it. Unlike
upstream the result is not rounded to float16. Runs in the helper process.

Source: RVC `merge` of infer/lib/train/process_ckpt.py, Applio rvc/train/process/model_blender.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from rvc_batch.engine.checkpoints import NetworkKind
from rvc_batch.engine.network_config import SynthesizerConfig
from rvc_batch.errors import ModelNotRvc
from rvc_batch.importers.canonical import check_state, fold_weight_norm, laid_out, split_weight_norm
from rvc_batch.importers.identify import CanonicalNetwork, opened_voice
from rvc_batch.importers.rules import Parameter, parameters
from rvc_batch.importers.tensors import F32
from rvc_batch.importers.voice import CONTENTVEC_NAMES, ImportedVoice

SPEAKERS = "emb_g.weight"


def mixed_voice(one: Path, other: Path, weight: float) -> CanonicalNetwork:
    """Return weight · one + (1 − weight) · other.

    Args:
        weight: 0 to 1.

    Raises:
        ModelNotRvc: they differ in what must be equal; says in what. ModelError: one of them cannot be used.
    """
    with opened_voice(one) as a, opened_voice(other) as b:
        refuse_difference((one.name, a), (other.name, b))
        check_state(one.name, a.config, a.state)
        check_state(other.name, b.config, b.state)
        config = dataclasses.replace(a.config, n_speakers=min(a.config.n_speakers, b.config.n_speakers))
        tensors = {
            key: laid_out(parameter, _mixed(key, parameter, a, b, weight))
            for key, parameter in parameters(config).items()
        }
    extra = {"blend": f"{weight:g} of {one.name}, {1 - weight:g} of {other.name}"}
    if embedder := a.extra.get("embedder_model") or b.extra.get("embedder_model"):
        extra["embedder_model"] = embedder
    return CanonicalNetwork(NetworkKind.SYNTHESIZER, config, tensors, extra)


def refuse_difference(one: tuple[str, ImportedVoice], other: tuple[str, ImportedVoice]) -> None:
    """Make sure that two voices have one architecture and one feature space.

    Raises:
        ModelNotRvc: they have not.
    """
    (name, a), (second, b) = one, other
    for what, first, last in (
        ("version", a.config.version, b.config.version),
        ("sample rate", f"{a.config.sample_rate} Hz", f"{b.config.sample_rate} Hz"),
        ("use of f0", _f0(a.config), _f0(b.config)),
        ("embedder", _embedder(a), _embedder(b)),
        *_sizes(a.config, b.config),
    ):
        if first != last:
            raise ModelNotRvc(
                f"{name} and {second} cannot be blended: they differ in {what} ({first} and {last}); choose two voices "
                "of one architecture"
            )


def _sizes(a: SynthesizerConfig, b: SynthesizerConfig) -> list[tuple[str, object, object]]:
    names = [field.name for field in dataclasses.fields(a) if field.name != "n_speakers"]
    return [(name, getattr(a, name), getattr(b, name)) for name in names]


def _f0(config: SynthesizerConfig) -> str:
    return "with f0" if config.has_f0 else "without f0"


def _embedder(voice: ImportedVoice) -> str:
    named = voice.extra.get("embedder_model")
    return "contentvec" if named is None or named.lower() in CONTENTVEC_NAMES else str(named)


def _mixed(key: str, parameter: Parameter, a: ImportedVoice, b: ImportedVoice, weight: float) -> F32:
    """Return a mixed tensor in the layout of the source."""
    if parameter.norm_axis is None:
        rows = slice(parameter.shape[0]) if key == SPEAKERS else slice(None)
        return _mix(a.state[key].read()[rows], b.state[key].read()[rows], weight)
    gain_a, direction_a = split_weight_norm(key, parameter, a.state)
    gain_b, direction_b = split_weight_norm(key, parameter, b.state)
    gain = np.float32(weight) * gain_a + np.float32(1 - weight) * gain_b  # float64 where a folded weight was split
    return fold_weight_norm(key, gain, _mix(direction_a, direction_b, weight), parameter.norm_axis)


def _mix(a: F32, b: F32, weight: float) -> F32:
    return np.asarray(np.float32(weight) * a + np.float32(1 - weight) * b, dtype=np.float32)

"""Voices: config and tensors of a small `.pth` exported by RVC or Applio.

The file says what it is (`config`, `sr`, `f0`, `version`) and the tensors say it again; where the two contradict each
other in a way that changes the audio, the import stops and names both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rvc_batch.engine.network_config import HARMONICS, HIFIGAN, SynthesizerConfig
from rvc_batch.errors import ModelKeys, ModelNotRvc
from rvc_batch.importers.pickled_data import shown
from rvc_batch.importers.tensors import SourceTensor, StateDict

FEATURE_DIMS = {"v1": 256, "v2": 768}
# what ContentVec is called where voices name the network they were trained with
CONTENTVEC_NAMES = {"contentvec", "hubert", "hubert_base", "hubert_base.pt"}
TEXT_KEYS = ("info", "model_name", "author", "embedder_model", "vocoder", "creation_date", "model_hash")
DATA_KEYS = ("epoch", "step", "dataset_length", "speakers_id", *TEXT_KEYS)
CONFIG_LENGTH = 18
MAX_CHANNELS, MAX_LAYERS, MAX_STAGES = 65_536, 64, 16  # no table of parameters grows without bound


@dataclass(frozen=True)
class ImportedVoice:
    """What a voice file holds. extra: what it says beyond its architecture, plain JSON values."""

    config: SynthesizerConfig
    state: StateDict
    extra: dict[str, Any]


def from_export(owner: str, file: Mapping[Any, object], weight: StateDict) -> ImportedVoice:
    """Return what a voice export holds; the posterior encoder, which only training needs, is left out.

    Raises:
        ModelNotRvc: unusable or contradictory metadata, another vocoder. ModelKeys: no speaker or phone embedding.
    """
    vocoder = file.get("vocoder", HIFIGAN)
    if not isinstance(vocoder, str) or vocoder not in HARMONICS:
        raise ModelNotRvc(
            f"{owner} uses the vocoder {shown(vocoder)}, which is not supported yet; expected "
            f"{' or '.join(HARMONICS)}. Use a voice trained with one of these"
        )
    state = {key: tensor for key, tensor in weight.items() if not key.startswith("enc_q.")}
    config = _config(owner, file, state, vocoder)
    if config.is_mrf:
        state = {_standard_key(key, len(config.resblock_kernels)): tensor for key, tensor in state.items()}
    if config.is_refinegan:
        merge = "dec.m_source.merge.0.weight"  # the one harmonic is merged under another name
        state = {"dec.m_source.l_linear.weight" if key == merge else key: tensor for key, tensor in state.items()}
    extra: dict[str, Any] = {key: plain for key in DATA_KEYS if (plain := _plain(file.get(key))) is not None}
    if warnings := _warnings(file, config):
        extra["warnings"] = warnings
    return ImportedVoice(config, state, extra)


def _standard_key(key: str, blocks_per_stage: int) -> str:
    """Return what the standard generator calls a parameter of MRF HiFi-GAN.

    Source: Applio rvc/lib/algorithm/generators/hifigan_mrf.py @ 0f98c61.
    """
    key = key.replace("dec.upsamples.", "dec.ups.", 1)
    found = re.fullmatch(r"dec\.mrfs\.(\d{1,3})\.(\d{1,3})\.layers\.(\d{1,3})\.conv([12])\.(.+)", key)
    if found is None:
        return key
    stage, block, layer = (int(found[place]) for place in (1, 2, 3))
    if block >= blocks_per_stage:
        return key  # it would take the name of another; as it is, it is named as unexpected
    return f"dec.resblocks.{stage * blocks_per_stage + block}.convs{found[4]}.{layer}.{found[5]}"


def _config(
    owner: str, file: Mapping[Any, object], state: Mapping[str, SourceTensor], vocoder: str
) -> SynthesizerConfig:
    values = file["config"]
    if not isinstance(values, list | tuple) or not CONFIG_LENGTH - 1 <= len(values) <= CONFIG_LENGTH:
        kind = f"{len(values)} values" if isinstance(values, list | tuple) else type(values).__name__
        raise ModelNotRvc(
            f"{owner}: its config is {kind}, expected RVC's list of {CONFIG_LENGTH}; it is not an RVC voice"
        )
    number = _Reader(owner, list(values))
    if values[9] not in ("1", 1):
        raise ModelNotRvc(f"{owner} uses residual block type {shown(values[9])}; only type 1 exists in RVC voices")
    feature_dim = _shape(owner, "enc_p.emb_phone.weight", state)[1]
    return SynthesizerConfig(
        version=_version(owner, file, feature_dim),
        feature_dim=feature_dim,
        has_f0=_has_f0(owner, file, state),
        sample_rate=_sample_rate(owner, file, values),
        inter_channels=number.channels(2),
        hidden_channels=number.channels(3),
        filter_channels=number.channels(4),
        n_heads=number.channels(5),
        n_layers=number.layers(6),
        kernel_size=number.layers(7),
        resblock_kernels=number.sizes(10),
        resblock_dilations=number.size_lists(11),
        upsample_rates=number.sizes(12),
        upsample_initial_channels=number.channels(13),
        upsample_kernels=number.sizes(14),
        # the config states the size of the speaker table at training time; the tensor is what was exported
        n_speakers=_shape(owner, "emb_g.weight", state)[0],
        gin_channels=number.channels(16),
        vocoder=vocoder,
    )


def _version(owner: str, file: Mapping[Any, object], feature_dim: int) -> str:
    stated = file.get("version")
    version = "v1" if stated is None else shown(stated)
    other = {"v1": "v2", "v2": "v1"}.get(version)
    if other is not None and feature_dim == FEATURE_DIMS[other]:
        says = f"says version {version}" if stated is not None else "states no version, which means v1"
        raise ModelNotRvc(
            f"{owner} {says}, but its phone embedding takes {feature_dim} features, the width of {other}; "
            "export the voice again with the right version"
        )
    return version


def _has_f0(owner: str, file: Mapping[Any, object], state: StateDict) -> bool:
    stated = file.get("f0", 1)
    if stated not in (0, 1):
        raise ModelNotRvc(f"{owner} has f0 = {shown(stated)}, expected 0 or 1")
    has_pitch = "enc_p.emb_pitch.weight" in state
    if bool(stated) != has_pitch:
        says = f"says f0 = {int(stated == 1)}" if "f0" in file else "states no f0, which means 1"
        holds = "has a pitch embedding" if has_pitch else "has no pitch embedding"
        raise ModelNotRvc(f"{owner} {says}, but it {holds} (enc_p.emb_pitch.weight); export the voice again")
    return has_pitch


def _sample_rate(owner: str, file: Mapping[Any, object], values: list[object] | tuple[object, ...]) -> int:
    stated = values[17] if len(values) == CONFIG_LENGTH else file.get("sr")
    rate = parse_rate(stated)
    if rate is None:
        raise ModelNotRvc(f"{owner} states the sample rate {shown(stated)}, expected for example 40000 or 40k")
    return rate


def parse_rate(value: object) -> int | None:
    """Return the rate in Hz for "40k", 40000 or "40000"; None for anything else."""
    if type(value) is int:
        return value if 0 < value < 10**6 else None
    match = re.fullmatch(r"(\d{1,6})(k?)", value) if isinstance(value, str) else None
    return int(match.group(1)) * (1000 if match.group(2) else 1) if match else None


class _Reader:
    """Reads bounded natural numbers out of the config list, by position."""

    def __init__(self, owner: str, values: list[object]) -> None:
        self.owner, self.values = owner, values

    def channels(self, place: int) -> int:
        return self._natural(place, self.values[place], MAX_CHANNELS)

    def layers(self, place: int) -> int:
        return self._natural(place, self.values[place], MAX_LAYERS)

    def sizes(self, place: int) -> tuple[int, ...]:
        return self._sizes(place, self.values[place])

    def size_lists(self, place: int) -> tuple[tuple[int, ...], ...]:
        value = self.values[place]
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_STAGES:
            raise self._unusable(place, value)
        return tuple(self._sizes(place, v) for v in value)

    def _sizes(self, place: int, value: object) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_STAGES:
            raise self._unusable(place, value)
        return tuple(self._natural(place, v, MAX_CHANNELS) for v in value)

    def _natural(self, place: int, value: object, limit: int) -> int:
        if type(value) is not int or not 1 <= value <= limit:
            raise self._unusable(place, value)
        return value

    def _unusable(self, place: int, value: object) -> ModelNotRvc:
        return ModelNotRvc(f"{self.owner}: config[{place}] is {shown(value)}, which is not possible in an RVC voice")


def _shape(owner: str, key: str, state: StateDict) -> tuple[int, ...]:
    if key not in state or len(state[key].shape) != 2:
        found = f"of shape {list(state[key].shape)}" if key in state else "missing"
        raise ModelKeys(f"{owner}: tensor {key} is {found}, expected a matrix; it is not an RVC voice")
    return state[key].shape


def _plain(value: object) -> str | int | float | None:
    """Return a scalar that is safe to keep and show, None for everything else."""
    if isinstance(value, str):
        return value[:500]
    return value if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63) else None


def _warnings(file: Mapping[Any, object], config: SynthesizerConfig) -> list[str]:
    warnings = []
    label = parse_rate(file.get("sr"))
    if label is not None and label != config.sample_rate:
        warnings.append(f"labelled {label} Hz but built for {config.sample_rate} Hz, which is used")
    embedder = file.get("embedder_model")
    if isinstance(embedder, str) and embedder.lower() not in CONTENTVEC_NAMES:
        warnings.append(f"trained with the embedder {shown(embedder)}, which it needs: see docs/voices.md")
    return warnings

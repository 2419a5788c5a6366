"""What is this file? Recognise a network by its content and bring it into canonical form, in memory.

File names decide nothing, but that a `.safetensors` file is no torch file. What is recognised but unusable (training
files, bare weights, other programs' models) is refused with one sentence that says what it is and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rvc_batch.engine.checkpoints import NetworkConfig, NetworkKind
from rvc_batch.errors import ModelCorrupt, ModelMissing, ModelNotRvc, ModelTraining
from rvc_batch.importers import crepe, fcpe, hubert, rmvpe, voice
from rvc_batch.importers.canonical import canonical_tensors
from rvc_batch.importers.canonical_voice import canonical_voice
from rvc_batch.importers.pickled_data import Inert, shown
from rvc_batch.importers.safetensors_file import read_safetensors
from rvc_batch.importers.sources import CANONICAL, FOLDER_CONFIG, FOLDER_WEIGHTS, folder_weights
from rvc_batch.importers.tensors import F32, StateDict
from rvc_batch.importers.torch_file import TorchFile, open_torch_file
from rvc_batch.importers.voice import ImportedVoice

MAX_CONFIG_BYTES = 2**20

EXPORT_ADVICE = (
    "export a small voice model first (RVC: ckpt-processing tab, extract; Applio: Extra or Export tab) and use that"
)


@dataclass(frozen=True)
class CanonicalNetwork:
    """A network ready to be written as a canonical checkpoint."""

    kind: NetworkKind
    config: NetworkConfig
    tensors: dict[str, F32]
    extra: dict[str, Any] = field(default_factory=dict)


def read_network(path: Path) -> CanonicalNetwork:
    """Recognise and read a network: a torch file, or a Hugging Face folder.

    Raises:
        ModelError: the subclass says what is wrong; see `rvc_batch.errors`.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == CANONICAL:
        return _network_of(path.name, canonical_voice(path))
    with open_torch_file(path) as file:
        if not isinstance(file.root, Mapping):
            raise ModelNotRvc(f"{path.name} holds {_described(file.root)}, expected a dict; it is not an RVC model")
        return _read_torch(path, file, file.root)


@contextmanager
def opened_voice(path: Path) -> Iterator[ImportedVoice]:
    """Open a voice, a `.pth` or a canonical checkpoint; its tensors can be read, in the layout of the source.

    Raises:
        ModelError: as `read_network`; ModelNotRvc: it is another network.
    """
    if path.suffix.lower() == CANONICAL:
        yield canonical_voice(path)
        return
    with open_torch_file(path) as file:
        if not isinstance(file.root, Mapping) or "weight" not in file.root:
            raise ModelNotRvc(f"{path.name} is not an RVC voice")
        yield _voice_of(path.name, file, file.root)


def _read_folder(folder: Path) -> CanonicalNetwork:
    weights = folder_weights(folder)
    if weights is None:
        raise ModelMissing(
            f"{folder} is not a model folder: it needs {FOLDER_CONFIG} and {' or '.join(FOLDER_WEIGHTS)}"
        )
    config = _read_json(folder / FOLDER_CONFIG)
    owner = f"{folder.name}/{weights.name}"
    if weights.suffix == ".safetensors":
        return _hugging_face(owner, config, read_safetensors(weights))
    with open_torch_file(weights) as file:
        return _hugging_face(owner, config, file.state_dict(file.root))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as e:
        raise ModelCorrupt(f"{path} is not JSON: {e}; download the folder again") from e
    if not isinstance(values, dict):
        raise ModelCorrupt(f"{path} is not a JSON object; download the folder again")
    return values


def _hugging_face(owner: str, config: Mapping[str, Any], state: StateDict) -> CanonicalNetwork:
    if not hubert.is_hugging_face(state):
        raise ModelNotRvc(f"{owner} is not a HuBERT: it has the tensors {_first(state)}")
    sizes, tensors = hubert.from_hugging_face(owner, config, state)
    return CanonicalNetwork(NetworkKind.HUBERT, sizes, canonical_tensors(owner, sizes, tensors))


def _read_torch(path: Path, file: TorchFile, root: Mapping[Any, object]) -> CanonicalNetwork:
    owner = path.name
    if "weight" in root:
        return _network_of(owner, _voice_of(owner, file, root))
    nested = root.get("model")
    state = file.state_dict(nested if isinstance(nested, Mapping) else root)
    if {"iteration", "learning_rate"} & set(root) and isinstance(nested, Mapping):
        raise ModelTraining(f"{owner} {_training(state)}")
    if hubert.is_fairseq(state):
        hubert_config, tensors = hubert.from_fairseq(owner, _fairseq_model(root), state)
        return CanonicalNetwork(NetworkKind.HUBERT, hubert_config, canonical_tensors(owner, hubert_config, tensors))
    if rmvpe.is_rmvpe(state):
        rmvpe_config, tensors = rmvpe.from_state(owner, state)
        return CanonicalNetwork(NetworkKind.RMVPE, rmvpe_config, canonical_tensors(owner, rmvpe_config, tensors))
    if fcpe.is_fcpe(root, state):
        fcpe_config, tensors = fcpe.from_file(owner, root, state)
        return CanonicalNetwork(NetworkKind.FCPE, fcpe_config, canonical_tensors(owner, fcpe_config, tensors))
    if crepe.is_crepe(state):
        crepe_config, tensors = crepe.from_state(owner, state)
        return CanonicalNetwork(NetworkKind.CREPE, crepe_config, canonical_tensors(owner, crepe_config, tensors))
    if hubert.is_hugging_face(state):
        raise ModelNotRvc(
            f"{owner} is the weight file of a Hugging Face folder; import the folder with its config.json"
        )
    if "enc_p.emb_phone.weight" in state:
        raise ModelNotRvc(f"{owner} holds the weights of an RVC voice without its config; {EXPORT_ADVICE}")
    if _is_discriminator(state):
        raise ModelTraining(f"{owner} is a discriminator, which only training uses; it has no voice to convert with")
    raise ModelNotRvc(f"{owner} is a torch file but no RVC model: it has the keys {_first(root)}")


def _voice_of(owner: str, file: TorchFile, root: Mapping[Any, object]) -> ImportedVoice:
    weight = file.state_dict(root["weight"])
    if "enc_p.emb_phone.weight" not in weight:
        raise ModelNotRvc(f"{owner} is not an RVC voice: its weight has the tensors {_first(weight)}")
    if "config" not in root:
        raise ModelNotRvc(f"{owner} holds the weights of an RVC voice without its config; {EXPORT_ADVICE}")
    return voice.from_export(owner, root, weight)


def _network_of(owner: str, found: ImportedVoice) -> CanonicalNetwork:
    tensors = canonical_tensors(owner, found.config, found.state)
    return CanonicalNetwork(NetworkKind.SYNTHESIZER, found.config, tensors, found.extra)


def _training(state: StateDict) -> str:
    if _is_discriminator(state):
        return (
            "is a training file of a discriminator (D_….pth), which has no voice; take the G file and " + EXPORT_ADVICE
        )
    if "enc_p.emb_phone.weight" in state:
        return f"is a raw training file (G_….pth or a pretrained base), not a voice; {EXPORT_ADVICE}"
    return "is a training file of another program than RVC; it cannot be used"


def _is_discriminator(state: StateDict) -> bool:
    return any(key.startswith("discriminators.") for key in state)


def _fairseq_model(root: Mapping[Any, object]) -> Mapping[str, object]:
    """Return the architecture part of a fairseq file: `cfg["model"]`, in old files the attributes of `args`."""
    cfg, args = root.get("cfg"), root.get("args")
    if isinstance(cfg, Mapping) and isinstance(cfg.get("model"), Mapping):
        return cfg["model"]  # type: ignore[no-any-return]
    if isinstance(cfg, Mapping) and isinstance(cfg.get("model"), Inert):
        return cfg["model"].attributes  # type: ignore[no-any-return]
    return args.attributes if isinstance(args, Inert) else {}


def _described(value: object) -> str:
    return f"a {value.name}" if isinstance(value, Inert) else f"a {type(value).__name__}"


def _first(keys: Mapping[Any, object]) -> str:
    names = [shown(key) for key in list(keys)[:6]]
    return ", ".join(names) + (", …" if len(keys) > len(names) else "") if names else "(none)"

"""Voices that are canonical checkpoints already: what `voices blend` makes, and what another home may hand over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from rvc_batch.engine.checkpoints import NetworkKind, check_keys, read_header
from rvc_batch.engine.network_config import SynthesizerConfig
from rvc_batch.errors import ModelCorrupt, ModelNotRvc
from rvc_batch.importers.rules import Parameter, canonical_shapes, parameters
from rvc_batch.importers.safetensors_file import read_safetensors
from rvc_batch.importers.tensors import F32, SourceTensor
from rvc_batch.importers.voice import ImportedVoice


def canonical_voice(path: Path) -> ImportedVoice:
    """Return what a canonical voice holds, with its tensors in the layout of RVC, weight norm folded.

    Raises:
        ModelNotRvc: not a voice, or of another schema. ModelKeys: tensors missing, unexpected or misshaped.
        ModelCorrupt: damaged, or numbers that are not finite.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
    except (SafetensorError, OSError) as e:
        raise ModelCorrupt(f"{path.name} is damaged or cut short ({e}); copy it again") from e
    if meta.get("format") != "rvc-batch":
        raise ModelNotRvc(f"{path.name} was not written by rvc-batch; voices of RVC and Applio are .pth files")
    header = read_header(path, NetworkKind.SYNTHESIZER)
    assert isinstance(header.config, SynthesizerConfig)
    tensors = read_safetensors(path)
    check_keys(path.name, canonical_shapes(header.config), {key: tensor.shape for key, tensor in tensors.items()})
    state = {key: _as_source(tensors[key], parameter) for key, parameter in parameters(header.config).items()}
    return ImportedVoice(header.config, state, header.extra)


def _as_source(tensor: SourceTensor, parameter: Parameter) -> SourceTensor:
    return SourceTensor(parameter.shape, tensor.dtype, _reader(tensor, parameter))


def _reader(tensor: SourceTensor, parameter: Parameter) -> Callable[[], F32]:
    def read() -> F32:
        values = tensor.read()
        return values.transpose(np.argsort(parameter.layout.value)) if parameter.layout.value else values

    return read

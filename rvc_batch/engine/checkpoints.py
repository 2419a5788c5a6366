"""Canonical checkpoints: safetensors in channels-last layout, strict, self-describing.

Layout of the tensors (docs/checkpoint-format.md): Linear [out, in]; Conv1d [out, kernel, in/groups];
ConvTranspose1d [out, kernel, in]; Conv2d [out, kh, kw, in]; ConvTranspose2d [out, kh, kw, in]; the rest as in the
source. Weight norm is folded. This file reads headers and compares keys; it never touches a framework and never
converts anything (importers do).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from rvc_batch.engine.network_config import CrepeConfig, FcpeConfig, HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.errors import ModelCorrupt, ModelKeys, ModelMissing, ModelNotRvc

SCHEMA = 1
Tensor = npt.NDArray[Any]


class NetworkKind(StrEnum):
    """What a network is for: content, pitch by one of three, synthesis."""

    HUBERT = "hubert"
    RMVPE = "rmvpe"
    FCPE = "fcpe"
    CREPE = "crepe"
    SYNTHESIZER = "synthesizer"


NetworkConfig = HubertConfig | RmvpeConfig | FcpeConfig | CrepeConfig | SynthesizerConfig
CONFIG_TYPES: dict[NetworkKind, type[NetworkConfig]] = {
    NetworkKind.HUBERT: HubertConfig,
    NetworkKind.RMVPE: RmvpeConfig,
    NetworkKind.FCPE: FcpeConfig,
    NetworkKind.CREPE: CrepeConfig,
    NetworkKind.SYNTHESIZER: SynthesizerConfig,
}


# networks that a pitch method needs beside those of every conversion
PITCH_KINDS = {"fcpe": NetworkKind.FCPE, "crepe": NetworkKind.CREPE, "crepe-tiny": NetworkKind.CREPE}


@dataclass(frozen=True)
class CheckpointHeader:
    """What a canonical checkpoint says of itself.

    `extra` keeps what the source said beyond the architecture (training epoch, embedder, vocoder, author, …).
    """

    kind: NetworkKind
    config: NetworkConfig
    source_name: str
    source_sha256: str
    extra: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, header: CheckpointHeader, tensors: Mapping[str, Tensor]) -> None:
    """Write a canonical checkpoint; every tensor becomes contiguous float32."""
    metadata = {
        "format": "rvc-batch",
        "schema": str(SCHEMA),
        "kind": header.kind.value,
        "config": json.dumps(header.config.to_json(), sort_keys=True),
        "source_name": header.source_name,
        "source_sha256": header.source_sha256,
        "extra": json.dumps(header.extra, sort_keys=True),
    }
    save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}, path, metadata)


def read_header(path: Path, kind: NetworkKind) -> CheckpointHeader:
    """Read what the checkpoint says of itself, without its tensors.

    Raises:
        ModelMissing: no such file. ModelCorrupt: not readable. ModelNotRvc: another kind, format or schema.
    """
    if not path.is_file():
        raise ModelMissing(f"{path} is not there; run `rvc-batch import`")
    try:
        with safe_open(path, framework="numpy") as f:
            meta = f.metadata() or {}
    except (SafetensorError, OSError) as e:
        raise ModelCorrupt(
            f"{path} ({path.stat().st_size} bytes) cannot be read: {e}; delete it, it is imported again"
        ) from e
    if meta.get("format") != "rvc-batch" or meta.get("schema") != str(SCHEMA):
        raise ModelNotRvc(
            f"{path} is not a checkpoint of schema {SCHEMA} (it says {meta.get('schema')!r}); delete it, it is "
            "imported again"
        )
    if meta["kind"] != kind:
        raise ModelNotRvc(f"{path} holds a {meta['kind']} network, expected {kind}")
    return CheckpointHeader(
        kind=kind,
        config=CONFIG_TYPES[kind].from_json(json.loads(meta["config"])),
        source_name=meta["source_name"],
        source_sha256=meta["source_sha256"],
        extra=json.loads(meta["extra"]),
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors by key, float32, channels last."""
    return dict(load_file(path))


def check_keys(owner: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare parameter shapes by key.

    Raises:
        ModelKeys: naming what is missing, unexpected or misshaped.
    """
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    wrong = [
        f"{k} is {list(found[k])}, expected {list(expected[k])}"
        for k in sorted(set(expected) & set(found))
        if tuple(found[k]) != tuple(expected[k])
    ]
    faults = [
        f"{len(group)} {what} ({', '.join(group[:4])}{', …' if len(group) > 4 else ''})"
        for what, group in (("missing", missing), ("unexpected", extra), ("misshaped", wrong))
        if group
    ]
    if faults:
        raise ModelKeys(f"{owner}: tensors {'; '.join(faults)}. The file is not the network it claims to be.")

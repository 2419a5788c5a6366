"""RMVPE: config and tensors of `rmvpe.pt`, a bare state dict; every size is read off the shapes."""

from __future__ import annotations

import re

from rvc_batch.engine.network_config import RmvpeConfig
from rvc_batch.errors import ModelKeys
from rvc_batch.importers.rules import RMVPE_HEAD_CHANNELS
from rvc_batch.importers.tensors import StateDict


def is_rmvpe(state: StateDict) -> bool:
    """Say whether the tensors have the names of RMVPE."""
    return "unet.encoder.bn.weight" in state and "fc.0.gru.weight_ih_l0" in state


def from_state(owner: str, state: StateDict) -> tuple[RmvpeConfig, StateDict]:
    """Return config and tensors; the batch counters of training are left out.

    Raises:
        ModelKeys: a tensor that gives a size is missing or has another rank.
    """
    kept = {key: tensor for key, tensor in state.items() if not key.endswith(".num_batches_tracked")}
    first = _shape(owner, "unet.encoder.layers.0.conv.0.conv.0.weight", state, 4)
    recurrent = _shape(owner, "fc.0.gru.weight_hh_l0", state, 2)
    mel = _shape(owner, "fc.0.gru.weight_ih_l0", state, 2)
    config = RmvpeConfig(
        base_channels=first[0],
        n_levels=_count(r"unet\.encoder\.layers\.(\d+)\.", state),
        n_blocks=_count(r"unet\.encoder\.layers\.0\.conv\.(\d+)\.", state),
        n_mid_levels=_count(r"unet\.intermediate\.layers\.(\d+)\.", state),
        gru_hidden=recurrent[1],
        n_gru_layers=_count(r"fc\.0\.gru\.weight_ih_l(\d+)$", state),
        n_mels=mel[1] // RMVPE_HEAD_CHANNELS,
        n_bins=_shape(owner, "fc.1.weight", state, 2)[0],
    )
    return config, kept


def _count(pattern: str, state: StateDict) -> int:
    return len({m.group(1) for key in state if (m := re.match(pattern, key))})


def _shape(owner: str, key: str, state: StateDict, rank: int) -> tuple[int, ...]:
    if key not in state or len(state[key].shape) != rank:
        found = f"of shape {list(state[key].shape)}" if key in state else "missing"
        raise ModelKeys(f"{owner}: tensor {key} is {found}, expected rank {rank}; it is not rmvpe.pt")
    return state[key].shape

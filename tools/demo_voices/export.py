"""Write the trained networks in the file formats of upstream programs, in half precision as they are published."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from rvc_batch.engine.checkpoints import NetworkConfig
from rvc_batch.engine.network_config import HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.torch_nets.hubert import Hubert
from rvc_batch.engine.torch_nets.layers import COUNTER
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer
from rvc_batch.importers.rules import parameters
from tools.demo_voices.corpus import Utterance

__all__ = ["write_hubert", "write_index", "write_rmvpe", "write_voice"]

SEGMENT = 32  # frames per training item, which upstream's config list names
SPECTRUM_BINS = 513
LEAST_PER_LIST = 39  # vectors that faiss asks for, as RVC's rule has it
MEANS_STEPS, MEANS_FEATURES = 25, 100  # of k-means; features per centroid
FAIRSEQ_NAMES = (
    ("feature_projection.projection.", "post_extract_proj."),
    ("feature_projection.layer_norm.", "layer_norm."),
    ("encoder.pos_conv_embed.conv.", "encoder.pos_conv.0."),
    (".conv_layers.0.layer_norm.", ".conv_layers.0.2."),
    (".conv.weight", ".0.weight"),
    (".attention.", ".self_attn."),
    (".feed_forward.intermediate_dense.", ".fc1."),
    (".feed_forward.output_dense.", ".fc2."),
)


def write_hubert(network: Hubert, config: HubertConfig, path: Path) -> None:
    """Write `hubert_base.pt` as fairseq does: names, weight norm, the model's settings."""
    state = _published(network, config)
    convolutions = list(zip(config.conv_dims, config.conv_kernels, config.conv_strides, strict=True))
    model = {
        "_name": "hubert",
        "extractor_mode": "default",
        "layer_norm_first": False,
        "activation_fn": "gelu",
        "conv_feature_layers": str(convolutions),
        "conv_bias": False,
        "encoder_layers": config.n_layers,
        "encoder_embed_dim": config.hidden,
        "encoder_ffn_embed_dim": config.ffn,
        "encoder_attention_heads": config.n_heads,
        "final_dim": config.projection,
        "conv_pos": config.pos_kernel,
        "conv_pos_groups": config.pos_groups,
    }
    torch.save({"cfg": {"model": model}, "model": OrderedDict((_fairseq(k), v) for k, v in state.items())}, path)


def write_rmvpe(network: Rmvpe, config: RmvpeConfig, path: Path) -> None:
    """Write `rmvpe.pt`: a bare state dict."""
    torch.save(_published(network, config), path)


def write_voice(network: Synthesizer, config: SynthesizerConfig, speaker: int, about: str, path: Path) -> None:
    """Write a voice as RVC exports it, with one of the network's speakers.

    about: free text that the file keeps.
    """
    state = _published(network, config)
    state["emb_g.weight"] = state["emb_g.weight"][speaker : speaker + 1].clone()
    values = [
        SPECTRUM_BINS,
        SEGMENT,
        config.inter_channels,
        config.hidden_channels,
        config.filter_channels,
        config.n_heads,
        config.n_layers,
        config.kernel_size,
        0,
        "1",
        list(config.resblock_kernels),
        [list(d) for d in config.resblock_dilations],
        list(config.upsample_rates),
        config.upsample_initial_channels,
        list(config.upsample_kernels),
        1,
        config.gin_channels,
        config.sample_rate,
    ]
    rate = f"{config.sample_rate // 1000}k"
    torch.save({"weight": state, "config": values, "info": about, "sr": rate, "f0": 1, "version": "v2"}, path)


def write_index(
    voice: str, utterances: list[Utterance], content: list[NDArray[np.float16]], count: int, seed: int, folder: Path
) -> Path:
    """Write an IVF-Flat index over centroids of the content features of a voice's plain speech; returns its path.

    count: of centroids, at most. They lie nearer to what will be asked for than as many features drawn by chance.
    Every list is searched: with so few vectors that costs nothing.
    """
    plain = [features for u, features in zip(utterances, content, strict=True) if u.is_plain]
    vectors = np.concatenate(plain).astype(np.float32)
    faiss.omp_set_num_threads(1)  # the same sums, and so the same centroids, at every run
    means = faiss.Kmeans(
        vectors.shape[1],
        min(count, len(vectors)),
        niter=MEANS_STEPS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=MEANS_FEATURES,
    )
    means.train(vectors)
    n_lists = max(1, means.k // LEAST_PER_LIST)
    index = faiss.index_factory(vectors.shape[1], f"IVF{n_lists},Flat")
    index.train(means.centroids)
    index.add(means.centroids)
    faiss.extract_index_ivf(index).nprobe = n_lists
    path = folder / f"added_IVF{n_lists}_Flat_nprobe_{n_lists}_{voice}_v2.index"
    faiss.write_index(index, str(path))
    return path


def _published(network: torch.nn.Module, config: NetworkConfig) -> OrderedDict[str, torch.Tensor]:
    """Return the state in half precision, with weight norm where published files have it."""
    axes = {key: p.norm_axis for key, p in parameters(config).items() if p.norm_axis is not None}
    # made plainly: one made through OrderedDict[…] would carry its alias into the pickle
    published: OrderedDict[str, torch.Tensor] = OrderedDict()
    for key, held in network.state_dict().items():
        value = held.detach().cpu()
        if key.endswith(COUNTER):
            continue
        if key not in axes:
            published[key] = value.half()
            continue
        others = [axis for axis in range(value.ndim) if axis != axes[key]]
        gain = value.norm(dim=others, keepdim=True)
        stem = key.removesuffix("weight")
        published[f"{stem}weight_g"] = gain.half()
        published[f"{stem}weight_v"] = value.half()
    return published


def _fairseq(key: str) -> str:
    if key.startswith("encoder.layers."):
        key = key.replace(".layer_norm.", ".self_attn_layer_norm.")
    for ours, theirs in FAIRSEQ_NAMES:
        key = key.replace(ours, theirs)
    return key

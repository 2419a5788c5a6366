"""HuBERT / ContentVec: keys and config from a fairseq file (`hubert_base.pt`) or a Hugging Face folder.

Both become the Hugging Face names. Variants with the same keys but other arithmetic (pre-norm, other activations)
are refused, because they would load and give wrong features.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from rvc_batch.engine.network_config import LAYER_NORM_EPS, HubertConfig
from rvc_batch.errors import ModelKeys, ModelNotRvc
from rvc_batch.importers.canonical import weight_shape
from rvc_batch.importers.pickled_data import shown
from rvc_batch.importers.tensors import SourceTensor, StateDict

# the waveform encoder of every published HuBERT base and ContentVec (fairseq hubert_base_librispeech.yaml)
PUBLISHED_KERNELS, PUBLISHED_STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
BASE_HIDDEN, BASE_HEADS = 768, 12
UNUSED = {"mask_emb", "label_embs_concat", "masked_spec_embed"}  # only training reads them

_FAIRSEQ_NAMES = (
    (re.compile(r"^feature_extractor\.conv_layers\.(\d+)\.0\."), r"feature_extractor.conv_layers.\1.conv."),
    (re.compile(r"^feature_extractor\.conv_layers\.(\d+)\.2\."), r"feature_extractor.conv_layers.\1.layer_norm."),
    (re.compile(r"^post_extract_proj\."), "feature_projection.projection."),
    (re.compile(r"^layer_norm\."), "feature_projection.layer_norm."),
    (re.compile(r"^encoder\.pos_conv\.0\."), "encoder.pos_conv_embed.conv."),
    (re.compile(r"\.self_attn_layer_norm\."), ".layer_norm."),
    (re.compile(r"\.self_attn\."), ".attention."),
    (re.compile(r"\.fc1\."), ".feed_forward.intermediate_dense."),
    (re.compile(r"\.fc2\."), ".feed_forward.output_dense."),
)


def is_fairseq(state: StateDict) -> bool:
    """Say whether the tensors have fairseq's names of a HuBERT."""
    return "post_extract_proj.weight" in state


def is_hugging_face(state: StateDict) -> bool:
    """Say whether the tensors have Hugging Face's names of a HuBERT."""
    return "feature_projection.projection.weight" in state


def from_fairseq(owner: str, model: Mapping[str, object], state: StateDict) -> tuple[HubertConfig, StateDict]:
    """Return config and renamed tensors of a fairseq checkpoint.

    model: its `cfg["model"]`, or the attributes of its `args`; empty when it has neither.

    Raises:
        ModelNotRvc: a variant with other arithmetic, or the number of heads is not known. ModelKeys: no such layers.
    """
    _require(owner, model, "layer_norm_first", False)
    _require(owner, model, "extractor_mode", "default")
    _require(owner, model, "activation_fn", "gelu")
    strides = None
    if isinstance(layers := model.get("conv_feature_layers"), str):
        strides = tuple(layer[2] for layer in _conv_feature_layers(owner, layers))
    renamed: dict[str, SourceTensor] = {}
    for key, tensor in state.items():
        if key not in UNUSED:
            for pattern, replacement in _FAIRSEQ_NAMES:
                key = pattern.sub(replacement, key)
            renamed[key] = tensor
    return _config(owner, renamed, model.get("encoder_attention_heads"), strides), renamed


def from_hugging_face(owner: str, config: Mapping[str, Any], state: StateDict) -> tuple[HubertConfig, StateDict]:
    """Return config and tensors of a Hugging Face checkpoint with its `config.json`.

    Raises:
        ModelNotRvc: a variant with other arithmetic, or the number of heads is not known. ModelKeys: no such layers.
    """
    _require(owner, config, "do_stable_layer_norm", False)
    _require(owner, config, "feat_extract_norm", "group")
    _require(owner, config, "hidden_act", "gelu")
    _require(owner, config, "feat_extract_activation", "gelu")
    _require(owner, config, "layer_norm_eps", LAYER_NORM_EPS)
    strides = None
    if isinstance(values := config.get("conv_stride"), list) and all(type(v) is int for v in values):
        strides = tuple(values)
    kept = {key: tensor for key, tensor in state.items() if key not in UNUSED}
    return _config(owner, kept, config.get("num_attention_heads"), strides), kept


def _require(owner: str, values: Mapping[str, object], key: str, expected: object) -> None:
    found = values.get(key, expected)
    if found != expected:
        raise ModelNotRvc(
            f"{owner} has {key} = {shown(found)}, expected {expected!r}: this HuBERT computes differently from the one "
            "RVC uses; get hubert_base.pt or ContentVec"
        )


def _config(owner: str, state: StateDict, heads: object, strides: tuple[int, ...] | None) -> HubertConfig:
    dims: list[int] = []
    kernels: list[int] = []
    while (key := f"feature_extractor.conv_layers.{len(dims)}.conv.weight") in state:
        n_out, _, kernel = _shape(owner, key, state, 3)
        dims.append(n_out)
        kernels.append(kernel)
    if strides is None:
        if tuple(kernels) != PUBLISHED_KERNELS:
            raise ModelNotRvc(
                f"{owner} states no strides and its kernels {kernels} are not those of HuBERT base "
                f"{list(PUBLISHED_KERNELS)}; use the published hubert_base.pt or a folder with config.json"
            )
        strides = PUBLISHED_STRIDES
    hidden = _shape(owner, "feature_projection.projection.weight", state, 2)[0]
    if heads is None and hidden == BASE_HIDDEN:
        heads = BASE_HEADS
    if type(heads) is not int or not 1 <= heads <= hidden:
        raise ModelNotRvc(
            f"{owner} gives {shown(heads)} attention heads for {hidden} channels; expected the number in its "
            "cfg (fairseq) or config.json (Hugging Face)"
        )
    _, per_group, pos_kernel = _shape(owner, "encoder.pos_conv_embed.conv.weight", state, 3)
    n_layers = 0
    while f"encoder.layers.{n_layers}.final_layer_norm.weight" in state:
        n_layers += 1
    return HubertConfig(
        conv_dims=tuple(dims),
        conv_kernels=tuple(kernels),
        conv_strides=strides,
        hidden=hidden,
        ffn=_shape(owner, "encoder.layers.0.feed_forward.intermediate_dense.weight", state, 2)[0],
        n_layers=n_layers,
        n_heads=heads,
        pos_kernel=pos_kernel,
        pos_groups=max(hidden // max(per_group, 1), 1),
        projection=_shape(owner, "final_proj.weight", state, 2)[0],
    )


def _shape(owner: str, key: str, state: StateDict, rank: int) -> tuple[int, ...]:
    shape = weight_shape(key, state)
    if shape is None or len(shape) != rank:
        found = "missing" if shape is None else f"of shape {list(shape)}"
        raise ModelKeys(f"{owner}: tensor {key} is {found}, expected rank {rank}; it is not a HuBERT that RVC can use")
    return shape


def _conv_feature_layers(owner: str, text: str) -> list[tuple[int, int, int]]:
    """Parse fairseq's `"[(512,10,5)] + [(512,3,2)] * 4"`, which fairseq itself evaluates as Python."""
    try:
        layers = _layers(ast.parse(text[:1000], mode="eval").body)
    except (ValueError, SyntaxError, RecursionError) as e:
        raise ModelNotRvc(f"{owner} has conv_feature_layers {shown(text)}, expected a list of triples") from e
    return layers


def _layers(node: ast.expr) -> list[tuple[int, int, int]]:
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _layers(left) + _layers(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if 0 <= times <= 32:
            return (_layers(left) * times)[:64]
    values = ast.literal_eval(node)
    if not isinstance(values, list) or not all(
        isinstance(v, tuple) and len(v) == 3 and all(type(n) is int for n in v) for v in values
    ):
        raise ValueError("not a list of triples")
    return values

"""The parameters of the canonical networks, derived from their configs alone.

One table serves the importers (which tensors a source must have, how each is laid out, which may be weight-normed)
and the tests of the networks (a third, independent list of keys and shapes). Pure arithmetic: no tensor is touched
and no network code is imported, so a mistake in the networks cannot hide here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from rvc_batch.engine.checkpoints import NetworkConfig
from rvc_batch.engine.network_config import (
    CREPE_KERNELS,
    FLOW_KERNEL,
    FLOW_LAYERS,
    N_FLOWS,
    PITCH_CODES,
    REFINE_DILATIONS,
    REFINE_KERNELS,
    RELATIVE_WINDOW,
    CrepeConfig,
    FcpeConfig,
    HubertConfig,
    RmvpeConfig,
    SynthesizerConfig,
)

RMVPE_HEAD_CHANNELS = 3  # of the last convolution, laid out side by side before the GRU


class Layout(Enum):
    """How a module stores its weight in the source; the value is the permutation to channels last."""

    AS_IS = ()
    CONV1D = (0, 2, 1)  # [O, I, K] → [O, K, I]
    CONV_TRANSPOSE1D = (1, 2, 0)  # [I, O, K] → [O, K, I]
    CONV2D = (0, 2, 3, 1)  # [O, I, h, w] → [O, h, w, I]
    CONV_TRANSPOSE2D = (1, 2, 3, 0)  # [I, O, h, w] → [O, h, w, I]


@dataclass(frozen=True)
class Parameter:
    """One parameter as torch stores it.

    norm_axis: the axis along which weight norm keeps one gain each, None where the layer has no weight norm.
    """

    shape: tuple[int, ...]
    layout: Layout = Layout.AS_IS
    norm_axis: int | None = None

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """The shape in the canonical checkpoint."""
        return tuple(self.shape[axis] for axis in self.layout.value) or self.shape


Named = Iterator[tuple[str, Parameter]]


def parameters(config: NetworkConfig) -> dict[str, Parameter]:
    """Return every parameter of a network by its canonical key."""
    match config:
        case HubertConfig():
            return dict(_hubert(config))
        case RmvpeConfig():
            return dict(_rmvpe(config))
        case FcpeConfig():
            return dict(_fcpe(config))
        case CrepeConfig():
            return dict(_crepe(config))
        case SynthesizerConfig():
            return dict(_synthesizer(config))


def canonical_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the canonical checkpoint of a network."""
    return {key: parameter.canonical_shape for key, parameter in parameters(config).items()}


# modules


def _linear(name: str, n_out: int, n_in: int) -> Named:
    yield f"{name}.weight", Parameter((n_out, n_in))
    yield f"{name}.bias", Parameter((n_out,))


def _conv1d(name: str, n_out: int, n_in: int, kernel: int, *, bias: bool = True, norm_axis: int | None = None) -> Named:
    yield f"{name}.weight", Parameter((n_out, n_in, kernel), Layout.CONV1D, norm_axis)
    if bias:
        yield f"{name}.bias", Parameter((n_out,))


def _conv2d(name: str, n_out: int, n_in: int, kernel: int, *, bias: bool) -> Named:
    yield f"{name}.weight", Parameter((n_out, n_in, kernel, kernel), Layout.CONV2D)
    if bias:
        yield f"{name}.bias", Parameter((n_out,))


def _norm(name: str, size: int, names: tuple[str, ...] = ("weight", "bias")) -> Named:
    for part in names:
        yield f"{name}.{part}", Parameter((size,))


def _batch_norm(name: str, size: int) -> Named:
    yield from _norm(name, size, ("weight", "bias", "running_mean", "running_var"))


# HuBERT


def _hubert(c: HubertConfig) -> Named:
    n_in = 1
    for i, (n_out, kernel) in enumerate(zip(c.conv_dims, c.conv_kernels, strict=True)):
        yield from _conv1d(f"feature_extractor.conv_layers.{i}.conv", n_out, n_in, kernel, bias=False)
        if i == 0:
            yield from _norm("feature_extractor.conv_layers.0.layer_norm", n_out)
        n_in = n_out
    yield from _norm("feature_projection.layer_norm", n_in)
    yield from _linear("feature_projection.projection", c.hidden, n_in)
    per_group = c.hidden // c.pos_groups
    yield from _conv1d("encoder.pos_conv_embed.conv", c.hidden, per_group, c.pos_kernel, norm_axis=2)
    yield from _norm("encoder.layer_norm", c.hidden)
    for i in range(c.n_layers):
        layer = f"encoder.layers.{i}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.attention.{projection}", c.hidden, c.hidden)
        yield from _norm(f"{layer}.layer_norm", c.hidden)
        yield from _linear(f"{layer}.feed_forward.intermediate_dense", c.ffn, c.hidden)
        yield from _linear(f"{layer}.feed_forward.output_dense", c.hidden, c.ffn)
        yield from _norm(f"{layer}.final_layer_norm", c.hidden)
    yield from _linear("final_proj", c.projection, c.hidden)


# RMVPE


def _rmvpe(c: RmvpeConfig) -> Named:
    yield from _batch_norm("unet.encoder.bn", 1)
    n_in, channels = 1, c.base_channels
    for level in range(c.n_levels):
        for block in range(c.n_blocks):
            yield from _residual(f"unet.encoder.layers.{level}.conv.{block}", channels, n_in)
            n_in = channels
        channels *= 2
    for level in range(c.n_mid_levels):
        for block in range(c.n_blocks):
            yield from _residual(f"unet.intermediate.layers.{level}.conv.{block}", channels, n_in)
            n_in = channels
    for level in range(c.n_levels):
        n_in, channels = channels, channels // 2
        up = f"unet.decoder.layers.{level}"
        yield f"{up}.conv1.0.weight", Parameter((n_in, channels, 3, 3), Layout.CONV_TRANSPOSE2D)
        yield from _batch_norm(f"{up}.conv1.1", channels)
        for block in range(c.n_blocks):
            # the first block sees the skip connection beside the upsampled half
            yield from _residual(f"{up}.conv2.{block}", channels, 2 * channels if block == 0 else channels)
    yield from _conv2d("cnn", RMVPE_HEAD_CHANNELS, c.base_channels, 3, bias=True)
    n_in = RMVPE_HEAD_CHANNELS * c.n_mels
    for layer in range(c.n_gru_layers):
        for direction in ("", "_reverse"):
            end = f"l{layer}{direction}"
            yield f"fc.0.gru.weight_ih_{end}", Parameter((3 * c.gru_hidden, n_in))
            yield f"fc.0.gru.weight_hh_{end}", Parameter((3 * c.gru_hidden, c.gru_hidden))
            yield f"fc.0.gru.bias_ih_{end}", Parameter((3 * c.gru_hidden,))
            yield f"fc.0.gru.bias_hh_{end}", Parameter((3 * c.gru_hidden,))
        n_in = 2 * c.gru_hidden
    yield from _linear("fc.1", c.n_bins, n_in)


def _residual(name: str, n_out: int, n_in: int) -> Named:
    yield from _conv2d(f"{name}.conv.0", n_out, n_in, 3, bias=False)
    yield from _batch_norm(f"{name}.conv.1", n_out)
    yield from _conv2d(f"{name}.conv.3", n_out, n_out, 3, bias=False)
    yield from _batch_norm(f"{name}.conv.4", n_out)
    if n_in != n_out:
        yield from _conv2d(f"{name}.shortcut", n_out, n_in, 1, bias=True)


# FCPE


def _fcpe(c: FcpeConfig) -> Named:
    yield from _conv1d("input_stack.0", c.hidden, c.n_mels, 3)
    yield from _norm("input_stack.1", c.hidden)
    yield from _conv1d("input_stack.3", c.hidden, c.hidden, 3)
    for i in range(c.n_layers):
        steps = f"net.encoder_layers.{i}.conformer.net"
        yield from _norm(f"{steps}.0", c.hidden)
        yield from _conv1d(f"{steps}.2", 2 * c.inner, c.hidden, 1)  # one half gates the other
        yield from _conv1d(f"{steps}.4.conv", c.inner, 1, c.kernel)
        yield from _conv1d(f"{steps}.6", c.hidden, c.inner, 1)
    yield from _norm("norm", c.hidden)
    yield "output_proj.weight", Parameter((c.n_bins, c.hidden), norm_axis=0)
    yield "output_proj.bias", Parameter((c.n_bins,))


# CREPE


def _crepe(c: CrepeConfig) -> Named:
    n_in = 1
    for i, (n_out, kernel) in enumerate(zip(c.channels, CREPE_KERNELS, strict=True), 1):
        yield from _conv1d(f"conv{i}", n_out, n_in, kernel)
        yield from _batch_norm(f"conv{i}_BN", n_out)
        n_in = n_out
    yield from _linear("classifier", c.n_bins, c.flat)


# the voice


def _synthesizer(c: SynthesizerConfig) -> Named:
    yield from _text_encoder(c)
    yield from _refinegan(c) if c.is_refinegan else _generator(c)
    yield from _flow(c)
    yield "emb_g.weight", Parameter((c.n_speakers, c.gin_channels))


def _text_encoder(c: SynthesizerConfig) -> Named:
    hidden = c.hidden_channels
    yield from _linear("enc_p.emb_phone", hidden, c.feature_dim)
    if c.has_f0:
        yield "enc_p.emb_pitch.weight", Parameter((PITCH_CODES, hidden))
    relative = Parameter((1, 2 * RELATIVE_WINDOW + 1, hidden // c.n_heads))
    for i in range(c.n_layers):
        attention = f"enc_p.encoder.attn_layers.{i}"
        yield f"{attention}.emb_rel_k", relative
        yield f"{attention}.emb_rel_v", relative
        for projection in ("conv_q", "conv_k", "conv_v", "conv_o"):
            yield from _conv1d(f"{attention}.{projection}", hidden, hidden, 1)
        yield from _norm(f"enc_p.encoder.norm_layers_1.{i}", hidden, ("gamma", "beta"))
        feed_forward = f"enc_p.encoder.ffn_layers.{i}"
        yield from _conv1d(f"{feed_forward}.conv_1", c.filter_channels, hidden, c.kernel_size)
        yield from _conv1d(f"{feed_forward}.conv_2", hidden, c.filter_channels, c.kernel_size)
        yield from _norm(f"enc_p.encoder.norm_layers_2.{i}", hidden, ("gamma", "beta"))
    yield from _conv1d("enc_p.proj", 2 * c.inter_channels, hidden, 1)


def _generator(c: SynthesizerConfig) -> Named:
    if c.has_f0:
        yield from _linear("dec.m_source.l_linear", 1, c.n_harmonics)
    ends_axis = 0 if c.is_mrf else None  # weight norm of the first and the last convolution
    yield from _conv1d("dec.conv_pre", c.upsample_initial_channels, c.inter_channels, 7, norm_axis=ends_axis)
    yield from _conv1d("dec.cond", c.upsample_initial_channels, c.gin_channels, 1)
    n_in, block = c.upsample_initial_channels, 0
    for stage, kernel in enumerate(c.upsample_kernels):
        channels = c.stage_channels(stage)
        # weight norm of a transposed convolution keeps one gain per input channel
        yield f"dec.ups.{stage}.weight", Parameter((n_in, channels, kernel), Layout.CONV_TRANSPOSE1D, 0)
        yield f"dec.ups.{stage}.bias", Parameter((channels,))
        if c.has_f0:
            stride = c.noise_stride(stage)
            yield from _conv1d(f"dec.noise_convs.{stage}", channels, 1, 2 * stride - stride % 2 if stride > 1 else 1)
        for size, dilations in zip(c.resblock_kernels, c.resblock_dilations, strict=True):
            for convs in ("convs1", "convs2"):
                for i in range(len(dilations)):
                    yield from _conv1d(f"dec.resblocks.{block}.{convs}.{i}", channels, channels, size, norm_axis=0)
            block += 1
        n_in = channels
    yield from _conv1d("dec.conv_post", 1, n_in, 7, bias=c.is_mrf, norm_axis=ends_axis)


def _refinegan(c: SynthesizerConfig) -> Named:
    stages, frames = len(c.upsample_rates), c.source_channels(0)
    yield "dec.m_source.l_linear.weight", Parameter((1, c.n_harmonics))
    yield from _conv1d("dec.pre_conv", c.source_channels(stages), 1, 7, norm_axis=0)
    for i in range(stages):
        n_in, n_out = c.source_channels(stages - i), c.source_channels(stages - i - 1)
        yield from _conv1d(f"dec.downsample_blocks.{i}", n_out, n_in, 7, norm_axis=0)
    yield from _conv1d("dec.mel_conv", frames, c.inter_channels, 7, norm_axis=0)
    yield from _conv1d("dec.cond", frames, c.gin_channels, 1)
    for stage in range(stages):
        channels, block = c.stage_channels(stage), f"dec.upsample_conv_blocks.{stage}"
        yield from _conv1d(f"{block}.input_conv", channels, 2 * channels + c.source_channels(stage + 1), 7)
        for i, kernel in enumerate(REFINE_KERNELS):
            yield f"{block}.blocks.{i}.0.weight", Parameter((channels,))
            for convs in ("convs1", "convs2"):
                for layer in range(len(REFINE_DILATIONS)):
                    name = f"{block}.blocks.{i}.1.{convs}.{layer}"
                    yield from _conv1d(name, channels, channels, kernel, norm_axis=0)
            yield f"{block}.blocks.{i}.2.weight", Parameter((channels,))
    yield from _conv1d("dec.conv_post", 1, c.stage_channels(stages - 1), 7, bias=False, norm_axis=0)


def _flow(c: SynthesizerConfig) -> Named:
    hidden, half = c.hidden_channels, c.inter_channels // 2
    for coupling in range(N_FLOWS):
        flow = f"flow.flows.{2 * coupling}"  # odd places hold the channel flips, which have no weights
        yield from _conv1d(f"{flow}.pre", hidden, half, 1)
        yield from _conv1d(f"{flow}.enc.cond_layer", 2 * hidden * FLOW_LAYERS, c.gin_channels, 1, norm_axis=0)
        for i in range(FLOW_LAYERS):
            yield from _conv1d(f"{flow}.enc.in_layers.{i}", 2 * hidden, hidden, FLOW_KERNEL, norm_axis=0)
            n_out = 2 * hidden if i < FLOW_LAYERS - 1 else hidden
            yield from _conv1d(f"{flow}.enc.res_skip_layers.{i}", n_out, hidden, 1, norm_axis=0)
        yield from _conv1d(f"{flow}.post", half, hidden, 1)

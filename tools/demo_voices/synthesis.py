"""The engine's synthesiser, run in batches and differentiably: same parameters, same arithmetic, for training only.

The engine's own forward takes one sequence and writes into its scores; here the relative terms are gathered
instead. A test holds the two equal.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from rvc_batch.engine.network_config import DECODER_SLOPE, FINAL_SLOPE, PRIOR_NOISE_SCALE, SynthesizerConfig
from rvc_batch.engine.torch_nets.encoder import RelativeAttention, TextEncoder
from rvc_batch.engine.torch_nets.generator import Generator
from rvc_batch.engine.torch_nets.layers import leaky_relu
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer

__all__ = ["attend", "encode", "generate", "latent", "new_synthesizer"]

SOURCE_GAIN = 8.0  # a sine of 0.1 almost fills the tanh; a random bias there can drown it, and pitch is learnt late
QUIET_LOG_STD = -3.0  # where the prior's deviation starts: its noise is an obstacle until the network uses it


def new_synthesizer(config: SynthesizerConfig) -> Synthesizer:
    """Return an untrained synthesiser: the flow begins as the identity, the prior with little noise."""
    network = Synthesizer(config)
    for flow in network.flow.flows[::2]:
        nn.init.zeros_(flow.post.weight)
        nn.init.zeros_(flow.post.bias)
    nn.init.constant_(network.dec.m_source.l_linear.weight, SOURCE_GAIN)
    nn.init.zeros_(network.dec.m_source.l_linear.bias)
    nn.init.constant_(network.enc_p.proj.bias[config.inter_channels :].data, QUIET_LOG_STD)
    width = config.hidden_channels // config.n_heads
    for layer in network.enc_p.encoder.attn_layers:
        nn.init.normal_(layer.emb_rel_k, std=width**-0.5)
        nn.init.normal_(layer.emb_rel_v, std=width**-0.5)
    nn.init.normal_(network.enc_p.emb_pitch.weight, std=0.1)
    for block in network.dec.resblocks:
        for conv in (*block.convs1, *block.convs2):
            nn.init.normal_(conv.weight, std=0.7 / math.sqrt(conv.weight.shape[1] * conv.weight.shape[2]))
    return network


def latent(
    network: Synthesizer, content: torch.Tensor, coarse: torch.Tensor, speaker: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Return z [B, C, T] as inference makes it, for content [B, T, D], pitch codes [B, T], speakers [B].

    noise: [B, C, T] standard normal.
    """
    mean, log_std = encode(network.enc_p, content, coarse)
    sample = mean + torch.exp(log_std) * noise * PRIOR_NOISE_SCALE
    mask = torch.ones(1, 1, content.shape[1])
    z: torch.Tensor = network.flow(sample, mask, network.emb_g(speaker)[:, :, None])
    return z


def encode(encoder: TextEncoder, content: torch.Tensor, coarse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and log deviation [B, C, T] of the prior."""
    x = encoder.emb_phone(content) + encoder.emb_pitch(coarse)
    x = leaky_relu(x * math.sqrt(x.shape[-1]), DECODER_SLOPE).transpose(1, 2)
    mask = torch.ones(1, 1, x.shape[2])
    stack = encoder.encoder
    layers = zip(stack.attn_layers, stack.norm_layers_1, stack.ffn_layers, stack.norm_layers_2, strict=True)
    for attention, norm_1, feed_forward, norm_2 in layers:
        x = norm_1(x + attend(attention, x))
        x = norm_2(x + feed_forward(x, mask))
    mean, log_std = encoder.proj(x).chunk(2, dim=1)
    return mean, log_std


def attend(attention: RelativeAttention, x: torch.Tensor) -> torch.Tensor:
    """Return the relative self-attention of [B, C, T], every frame valid."""
    near_keys, near_values = attention.emb_rel_k[0], attention.emb_rel_v[0]
    reach, frames = near_keys.shape[0] // 2, x.shape[2]
    heads = attention._heads

    def split(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(y.shape[0], heads, -1, frames).transpose(2, 3)

    q, k, v = split(attention.conv_q(x)), split(attention.conv_k(x)), split(attention.conv_v(x))
    q = q * q.shape[-1] ** -0.5
    ahead = torch.arange(frames)[None] - torch.arange(frames)[:, None]  # of the key, in frames
    is_near = (ahead.abs() <= reach).float()
    row = (ahead + reach).clamp(0, 2 * reach)
    near = (q @ near_keys.T).gather(-1, row.expand(*q.shape[:2], -1, -1)) * is_near
    weights = (q @ k.transpose(-1, -2) + near).softmax(dim=-1)
    column = torch.arange(frames)[:, None] + torch.arange(-reach, reach + 1)[None]
    exists = ((column >= 0) & (column < frames)).float()
    bands = weights.gather(-1, column.clamp(0, frames - 1).expand(*q.shape[:2], -1, -1)) * exists
    y = weights @ v + bands @ near_values
    z: torch.Tensor = attention.conv_o(y.transpose(2, 3).reshape(x.shape))
    return z


def generate(generator: Generator, z: torch.Tensor, source: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
    """Return audio [B, T·hop] for z [B, C, T], source [B, T·hop] and speaker embeddings [B, G, 1]."""
    harmonics = torch.tanh(generator.m_source.l_linear(source[..., None])).transpose(1, 2)
    n_blocks = len(generator.resblocks) // len(generator.ups)
    x = generator.conv_pre(z) + generator.cond(speaker)
    for i, up in enumerate(generator.ups):
        x = up(leaky_relu(x, DECODER_SLOPE)) + generator.noise_convs[i](harmonics)
        blocks = generator.resblocks[i * n_blocks : (i + 1) * n_blocks]
        x = sum((block(x) for block in blocks[1:]), start=blocks[0](x)) / n_blocks
    return torch.tanh(generator.conv_post(leaky_relu(x, FINAL_SLOPE)))[:, 0]

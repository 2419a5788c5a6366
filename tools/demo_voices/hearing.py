"""What a generated wave says, as the content network hears it.

Spectral losses weigh a hiss and a vowel by their size; whoever listens weighs them by what they tell. The network
that reads content from speech is at hand, so what it hears in the generated wave is compared to what it hears in
the true one (the idea of Johnson et al. 2016, on speech).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from rvc_batch.engine.torch_nets.hubert import Hubert
from tools.demo_voices.content import layers

__all__ = ["Hearing"]

EVERY = 4  # layers: those that are compared


class Hearing:
    """The content network, fixed."""

    def __init__(self, network: Hubert) -> None:
        self._network = network.requires_grad_(False).eval()

    def __call__(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return how far what is heard in waves [B, N] lies from what is heard in others, relative to its size."""
        with torch.no_grad():
            truth = layers(self._network, wanted)[::EVERY]
        heard = layers(self._network, made)[::EVERY]
        terms = [functional.l1_loss(h, t) / t.abs().mean() for h, t in zip(heard, truth, strict=True)]
        return torch.stack(terms).mean()

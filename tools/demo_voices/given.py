"""Networks of an earlier run, read from its model files by the project's own importers.

A folder that this recipe wrote is enough to go on from: content and pitch network are taken as they are, each voice
goes on by itself. What only training needs (heads, discriminators, optimisers) starts anew.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rvc_batch.engine.checkpoints import check_keys, read_tensors
from rvc_batch.engine.torch_nets.hubert import Hubert
from rvc_batch.engine.torch_nets.layers import canonical_shapes, load_canonical
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer
from rvc_batch.importers.store import ModelStore
from tools.demo_voices.settings import Recipe

__all__ = ["Given"]

SPEAKERS = "emb_g.weight"

Network = TypeVar("Network", bound=nn.Module)


class Given:
    """The model files of a folder, as the recipe lays it out.

    Raises, when a file is read:
        ModelError: it cannot be used, or is of other sizes than the recipe's; names the tensors.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def content(self, recipe: Recipe) -> Hubert | None:
        """Return the content network, if there is one."""
        if not (self._folder / "hubert_base.pt").is_file():
            return None
        with tempfile.TemporaryDirectory() as cache:
            return _filled(Hubert(recipe.hubert), self._store(cache).hubert())

    def pitch(self, recipe: Recipe) -> Rmvpe | None:
        """Return the pitch network, if there is one."""
        if not (self._folder / "rmvpe.pt").is_file():
            return None
        with tempfile.TemporaryDirectory() as cache:
            return _filled(Rmvpe(recipe.rmvpe), self._store(cache).rmvpe())

    def has_voices(self, recipe: Recipe) -> bool:
        """Return whether the voices of all targets are there."""
        return all((self._folder / "voices" / v / f"{v}.pth").is_file() for v in recipe.targets)

    def fill_voice(self, network: Synthesizer, recipe: Recipe, voice: str) -> None:
        """Fill a network of all targets from one target's voice; each speaker is that of its own voice."""
        with tempfile.TemporaryDirectory() as cache:
            store = self._store(cache)
            voices = {v: read_tensors(store.voice(v).checkpoint) for v in recipe.targets}
        speakers = np.concatenate([voices[v][SPEAKERS] for v in recipe.targets])
        _fill(network, {**voices[voice], SPEAKERS: speakers}, str(self._folder))
        network.requires_grad_(True)  # what is filled is not for training otherwise

    def _store(self, cache: str) -> ModelStore:
        return ModelStore(models=self._folder, voices=self._folder / "voices", cache=Path(cache))


def _filled(network: Network, checkpoint: Path) -> Network:
    _fill(network, read_tensors(checkpoint), str(checkpoint))
    return network.eval()


def _fill(network: nn.Module, tensors: dict[str, NDArray[np.float32]], name: str) -> None:
    check_keys(name, canonical_shapes(network), {key: tuple(value.shape) for key, value in tensors.items()})
    load_canonical(network, tensors)

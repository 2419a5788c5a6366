"""Networks of an earlier run, read from its model files by the project's own importers.

A folder that this recipe wrote is enough to go on from: content and pitch network are taken as they are, the voices
are where training begins. What only training needs (heads, discriminators, optimisers) starts anew.
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

    def fill_voices(self, network: Synthesizer, recipe: Recipe) -> bool:
        """Fill a network of all targets: each one's speaker from its own voice, the rest from the first.

        Returns whether the voices of all targets are there; if not, nothing is done.
        """
        if not all((self._folder / "voices" / v / f"{v}.pth").is_file() for v in recipe.targets):
            return False
        with tempfile.TemporaryDirectory() as cache:
            store = self._store(cache)
            voices = [read_tensors(store.voice(voice).checkpoint) for voice in recipe.targets]
        _fill(network, {**voices[0], SPEAKERS: np.concatenate([v[SPEAKERS] for v in voices])}, str(self._folder))
        network.requires_grad_(True)  # what is filled is not for training otherwise
        return True

    def _store(self, cache: str) -> ModelStore:
        return ModelStore(models=self._folder, voices=self._folder / "voices", cache=Path(cache))


def _filled(network: Network, checkpoint: Path) -> Network:
    _fill(network, read_tensors(checkpoint), str(checkpoint))
    return network.eval()


def _fill(network: nn.Module, tensors: dict[str, NDArray[np.float32]], name: str) -> None:
    check_keys(name, canonical_shapes(network), {key: tuple(value.shape) for key, value in tensors.items()})
    load_canonical(network, tensors)

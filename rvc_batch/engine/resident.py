"""The voices a backend keeps loaded: the least recently used beyond a few are dropped. It never reads a file itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

RESIDENT_VOICES = 4  # voices of published size take 60 to 110 MB each

Network = TypeVar("Network")


class ResidentVoices(Generic[Network]):
    """Networks by checkpoint path, one of them current."""

    def __init__(self, load: Callable[[Path], Network], capacity: int) -> None:
        self._load = load
        self._capacity = capacity
        self._networks: OrderedDict[Path, Network] = OrderedDict()

    def make_current(self, checkpoint: Path) -> Network:
        """Return the network of a checkpoint, loaded if it is not resident; nothing changes if loading fails."""
        network = self._networks.pop(checkpoint, None)
        if network is None:
            network = self._load(checkpoint)
        self._networks[checkpoint] = network
        self.keep(self._capacity)
        return network

    def keep(self, capacity: int) -> None:
        """Keep at most so many networks from now on."""
        self._capacity = capacity
        while len(self._networks) > capacity:
            self._networks.popitem(last=False)

    @property
    def current(self) -> Network:
        """Return the network last made current.

        Raises:
            RuntimeError: there is none yet.
        """
        if not self._networks:
            raise RuntimeError("no voice is loaded: call load_voice before synthesis")
        return next(reversed(self._networks.values()))

    def __len__(self) -> int:
        return len(self._networks)

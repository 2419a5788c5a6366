"""Where the training runs: torch's default device, chosen once by the command line.

What torch makes is there already; what numpy made is brought there by `on_device`.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

__all__ = ["on_device"]


def on_device(array: NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor on the default device."""
    return torch.from_numpy(array).to(torch.get_default_device())

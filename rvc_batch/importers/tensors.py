"""Tensors of a foreign file, described before they are read.

Architectures are recognised and keys are checked from shapes alone; numbers are read once, one tensor at a time, and
arrive as float32 in the layout of the source. Nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rvc_batch.errors import ModelCorrupt, ModelNotRvc

F32 = npt.NDArray[np.float32]

ITEM_BYTES = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
}
ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class SourceTensor:
    """Shape and number format of a tensor, and how to read it as float32 [shape]."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], F32]


StateDict = Mapping[str, SourceTensor]


def stored_numbers(raw: bytes, dtype: str, order: ByteOrder) -> npt.NDArray[Any]:
    """Return raw storage bytes as a flat array; bfloat16 stays as its 16 bits (uint16)."""
    base = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    return np.frombuffer(raw, dtype=base.newbyteorder("<" if order == "little" else ">"))


def to_float32(name: str, numbers: npt.NDArray[Any], dtype: str) -> F32:
    """Return stored numbers as finite float32; float16 and bfloat16 widen exactly.

    Raises:
        ModelNotRvc: the tensor holds integers (a quantised model).
        ModelCorrupt: it holds NaN or infinity.
    """
    if dtype == "bfloat16":
        values = (numbers.astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("float16", "float32", "float64"):
        with np.errstate(over="ignore"):  # found by the check below
            values = numbers.astype(np.float32)
    else:
        raise ModelNotRvc(
            f"tensor {name} holds {dtype} numbers; expected float16, bfloat16 or float32. "
            "Quantised models are not supported: use the original export"
        )
    if not np.isfinite(values).all():
        raise ModelCorrupt(f"tensor {name} holds NaN or infinite numbers: its training failed, use an earlier export")
    return values

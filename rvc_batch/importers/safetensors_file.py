"""Foreign safetensors files, described like torch files. bfloat16 is widened here because numpy has no such type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors

from rvc_batch.errors import ModelNotRvc
from rvc_batch.importers.tensors import F32, SourceTensor, stored_numbers, to_float32
from rvc_batch.importers.torch_file import MAX_FILE_BYTES, damaged

DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32"}


def read_safetensors(path: Path) -> dict[str, SourceTensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ModelCorrupt: damaged or cut short. ModelNotRvc: larger than any RVC model.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelNotRvc(f"{path.name} has {size} bytes, more than any RVC model ({MAX_FILE_BYTES}); it is not one")
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as e:
        raise damaged(path.name, size, str(e)) from e
    return {name: _described(name, entry) for name, entry in entries}


def _described(name: str, entry: dict[str, Any]) -> SourceTensor:
    shape = tuple(entry["shape"])
    dtype = DTYPES.get(entry["dtype"], str(entry["dtype"]))
    return SourceTensor(shape, dtype, _reader(name, bytes(entry["data"]), dtype, shape))


def _reader(name: str, raw: bytes, dtype: str, shape: tuple[int, ...]) -> Callable[[], F32]:
    def read() -> F32:
        if dtype not in DTYPES.values():
            raise ModelNotRvc(f"tensor {name} holds {dtype} numbers; expected float16, bfloat16 or float32")
        return to_float32(name, stored_numbers(raw, dtype, "little"), dtype).reshape(shape)

    return read

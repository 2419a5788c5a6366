"""What a checkpoint's pickle may name, and what each name becomes: plain data, references to numbers, inert objects.

Adding a name here is a security decision. Each constructor gets data that the file controls and must do nothing but
check and keep it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_RANK = 8
MAX_ELEMENTS = 2**40  # far above any file; keeps the arithmetic on sizes small

STORAGE_DTYPES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
}


@dataclass(frozen=True)
class StorageRef:
    """A run of `numel` numbers stored under `key`."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor as offset, shape and strides (in elements) into a storage; checked to lie inside it."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Inert:
    """What stands for an object of a class that is known but never needed: its name and its attributes."""

    name: str
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Constructor:
    """A name the machine knows. Only these can be called, and only with data."""

    name: str
    build: Callable[[tuple[object, ...]], object] | None = None


class Misfit(Exception):
    """A constructor got arguments it has no use for."""


def _build_dict(arguments: tuple[object, ...]) -> object:
    if not arguments:
        return {}
    pairs = arguments[0]
    if len(arguments) != 1 or not isinstance(pairs, list):
        raise Misfit("expected no argument or one list of pairs")
    result: dict[str, object] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise Misfit("expected pairs of name and value")
        result[pair[0]] = pair[1]
    return result


def _build_size(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 1 or not isinstance(arguments[0], list | tuple):
        raise Misfit("expected one tuple")
    return tuple(arguments[0])


def _build_tensor(arguments: tuple[object, ...]) -> object:
    if not 6 <= len(arguments) <= 7:  # storage, offset, size, stride, requires_grad, hooks[, metadata]
        raise Misfit(f"{len(arguments)} arguments")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StorageRef) or type(offset) is not int or offset < 0:
        raise Misfit("expected a storage and an offset")
    sizes, steps = _naturals(shape), _naturals(strides)
    if len(sizes) != len(steps) or len(sizes) > MAX_RANK:
        raise Misfit(f"{len(sizes)} sizes with {len(steps)} strides")
    elements = math.prod(sizes)
    last = offset + sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))
    if elements and (last >= storage.numel or elements > storage.numel):
        at = f"shape {list(sizes)} at offset {shown(offset)}"
        raise Misfit(f"{at} does not fit {storage.numel} stored numbers")
    return TensorRef(storage, offset, sizes, steps)


def _naturals(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(v) is int and 0 <= v < MAX_ELEMENTS for v in value):
        raise Misfit("expected a tuple of sizes")
    return value


def _build_parameter(arguments: tuple[object, ...]) -> object:
    if not arguments or not isinstance(arguments[0], TensorRef):
        raise Misfit("expected a tensor")
    return arguments[0]


def _inert(name: str) -> Callable[[tuple[object, ...]], object]:
    return lambda _: Inert(name)


def shown(value: object) -> str:
    """Return a value from a file in a form that fits a message: printable and short.

    Containers are named, not printed: shared or cyclic parts can make a small file print without end.
    """
    if isinstance(value, str):
        start = value[:200]
        text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in start)
        return text if len(text) <= 120 else text[:119] + "…"
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
    return f"a {value.name if isinstance(value, Inert) else type(value).__name__}"


def _table() -> dict[str, Constructor]:
    constructors = [
        Constructor("collections.OrderedDict", _build_dict),
        Constructor("torch.Size", _build_size),
        Constructor("torch._utils._rebuild_tensor_v2", _build_tensor),
        Constructor("torch._utils._rebuild_parameter", _build_parameter),
    ]
    constructors += [Constructor(f"torch.{name}") for name in STORAGE_DTYPES]
    constructors += [Constructor(f"torch.{name}") for name in ("float16", "bfloat16", "float32", "float64", "int64")]
    inert = (
        "argparse.Namespace",
        "fairseq.data.dictionary.Dictionary",
        # numpy scalars in the training metrics of fairseq; their bytes are never decoded
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "_codecs.encode",
    )
    constructors += [Constructor(name, _inert(name)) for name in inert]
    return {c.name: c for c in constructors}


CONSTRUCTORS = _table()

"""A pickle machine that can only build data.

Checkpoints of torch are pickles, and a pickle is a program: the standard loader imports and calls whatever it names.
This machine executes the few instructions that torch writes and knows a dozen names, each bound to a constructor
written here. It imports nothing, calls nothing from the file and looks into no nested pickle; any other name or
instruction is refused, and the refusal says which. Tensors come out as `TensorRef`: where their numbers lie.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO

from rvc_batch.errors import ModelCorrupt, ModelUnsafe
from rvc_batch.importers.pickled_data import (
    CONSTRUCTORS,
    MAX_ELEMENTS,
    STORAGE_DTYPES,
    Constructor,
    Inert,
    Misfit,
    StorageRef,
    shown,
)

MAX_INSTRUCTIONS = 4_000_000  # a raw training file with its optimiser needs about 200 000


def unpickle(stream: IO[bytes], owner: str) -> object:
    """Build the data of one pickle and leave `stream` behind its end.

    Dicts come out as dicts (ordered as stored), tensors as `TensorRef`, known classes as `Inert`.

    Raises:
        ModelUnsafe: it names a global or an instruction that a checkpoint does not need.
        ModelCorrupt: it is damaged, or larger than any checkpoint.
    """
    return _Machine(owner).run(stream)


class _Machine:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.stack: list[object] = []
        self.outer: list[list[object]] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}

    def run(self, stream: IO[bytes]) -> object:
        for _ in range(MAX_INSTRUCTIONS):
            name, argument = self.instruction(stream)
            if name == "STOP":
                return self.pop()
            _STEPS[name](self, argument)
        raise ModelCorrupt(
            f"{self.owner} has more than {MAX_INSTRUCTIONS} pickle instructions; no checkpoint needs that many"
        )

    def instruction(self, stream: IO[bytes]) -> tuple[str, object]:
        """Read name and argument of the next instruction; arguments of refused ones are not even parsed."""
        opcode = _OPCODES.get(stream.read(1).decode("latin-1"))
        if opcode is None:
            raise self.damaged("it ends early, or holds a byte that is no instruction")
        if opcode.name != "STOP" and opcode.name not in _STEPS:
            raise ModelUnsafe(
                f"{self.owner} uses the pickle instruction {opcode.name}, which no checkpoint needs; nothing was run. "
                "Get the model from another source"
            )
        try:
            if opcode.name in ("GLOBAL", "INST"):  # as pickle reads names; pickletools would resolve escapes in them
                return opcode.name, f"{_line(stream)} {_line(stream)}"
            return opcode.name, opcode.arg.reader(stream) if opcode.arg is not None else None
        except (ValueError, IndexError, OverflowError) as e:
            raise self.damaged(str(e)) from e

    def damaged(self, detail: str) -> ModelCorrupt:
        return ModelCorrupt(f"{self.owner}: its pickle is damaged ({shown(detail)}); copy or download the file again")

    # the stack

    def pop(self) -> object:
        if not self.stack:
            raise self.damaged("its stack runs empty")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        if not self.outer:
            raise self.damaged("a mark is missing")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def mark(self, _: object) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def push(self, argument: object) -> None:
        self.stack.append(argument)

    def drop(self, _: object) -> None:
        self.pop()

    def top(self) -> object:
        if not self.stack:
            raise self.damaged("its stack runs empty")
        return self.stack[-1]

    # the memo

    def put(self, argument: object) -> None:
        assert isinstance(argument, int)
        self.memo[argument] = self.top()

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.top()

    def get(self, argument: object) -> None:
        assert isinstance(argument, int)
        if argument not in self.memo:
            raise self.damaged(f"memo entry {argument} is missing")
        self.stack.append(self.memo[argument])

    # containers

    def small_tuple(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.stack.append(tuple(reversed(items)))

    def tuple_to_mark(self, _: object) -> None:
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def list_to_mark(self, _: object) -> None:
        items = self.pop_to_mark()
        self.stack.append(items)

    def dict_to_mark(self, _: object) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self.fill(items)

    def append(self, _: object) -> None:
        self.extend([self.pop()])

    def appends(self, _: object) -> None:
        self.extend(self.pop_to_mark())

    def extend(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise self.damaged(f"append to {type(target).__name__}")
        target.extend(items)

    def setitem(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self.fill([key, value])

    def setitems(self, _: object) -> None:
        self.fill(self.pop_to_mark())

    def fill(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise self.damaged(f"{len(items)} keys and values set in {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # scalars only: hashing a deeply nested tuple can overflow the C stack
            if not isinstance(key, str | int | float | bytes | None):
                raise self.damaged(f"dict key of type {type(key).__name__}")
            target[key] = value

    # names and what is done with them

    def named(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self.stack.append(self.constructor(module, name))

    def named_on_stack(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.damaged("a global's name is not text")
        self.stack.append(self.constructor(module, name))

    def refuse_instance(self, argument: object) -> None:
        self.named(argument)
        raise ModelUnsafe(
            f"{self.owner} creates an object of {shown(argument)} in a way no checkpoint needs; nothing was run"
        )

    def constructor(self, module: str, name: str) -> Constructor:
        full = f"{module}.{name}"
        if full not in CONSTRUCTORS:
            raise ModelUnsafe(
                f"{self.owner} asks for {shown(full)}, which no checkpoint needs; nothing was run. "
                "The file may be hostile: get the model from another source"
            )
        return CONSTRUCTORS[full]

    def call(self, _: object) -> None:
        arguments, constructor = self.pop(), self.pop()
        if not isinstance(constructor, Constructor) or constructor.build is None or not isinstance(arguments, tuple):
            raise self.damaged(f"a call of {getattr(constructor, 'name', type(constructor).__name__)}")
        try:
            self.stack.append(constructor.build(arguments))
        except Misfit as e:
            raise self.damaged(f"{constructor.name}: {e}") from e

    def set_state(self, _: object) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Inert):
            if isinstance(state, dict):
                target.attributes.update({k: v for k, v in state.items() if isinstance(k, str)})
        elif not isinstance(target, dict):  # a state dict's `_metadata` attribute is not needed
            raise self.damaged(f"attributes set on {type(target).__name__}")

    def storage(self, _: object) -> None:
        """Take a persistent id, which in torch files is ("storage", type, key, device, number of elements)."""
        match self.pop():
            # the form before torch 1.6 has a sixth field for views, which nothing writes any more
            case ("storage", Constructor(name=kind), str(key), str(), int(numel), *views) if views in ([], [None]):
                dtype = STORAGE_DTYPES.get(kind.removeprefix("torch."))
                if dtype is not None and 0 <= numel < MAX_ELEMENTS:
                    self.stack.append(StorageRef(key, dtype, numel))
                    return
        raise self.damaged("a persistent id that is not a tensor storage")


def _line(stream: IO[bytes]) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ValueError("a name ends early")
    return line[:-1].decode()


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_Step = Callable[[_Machine, object], None]
_PUSH_ARGUMENT = (
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "SHORT_BINBYTES BINBYTES BINBYTES8"
)
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_PUSH_ARGUMENT.split(), _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "MEMOIZE": _Machine.memoize,
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda m, _: m.small_tuple(1),
    "TUPLE2": lambda m, _: m.small_tuple(2),
    "TUPLE3": lambda m, _: m.small_tuple(3),
    "LIST": _Machine.list_to_mark,
    "DICT": _Machine.dict_to_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named_on_stack,
    "INST": _Machine.refuse_instance,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.storage,
}

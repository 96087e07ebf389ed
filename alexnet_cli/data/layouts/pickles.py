"""Reads the pickles of CIFAR-10's archive: one dictionary of texts, numbers, lists and arrays of bytes.

A pickle is a program for a machine with a stack. Python's own machine runs any function that a pickle names, and hashes
any key that it makes, which for tuples that share their parts takes exponential time. This one knows what CIFAR's
pickles hold and refuses the rest. The work and the memory of a program grow with its size, and Ctrl-C ends it.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_cli.errors import BadSource

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
BYTE_STRINGS = {"BINSTRING", "SHORT_BINSTRING"}  # Python 2's str, which pickletools decodes as Latin-1
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MODULES = {"numpy.core.multiarray": "multiarray", "numpy._core.multiarray": "multiarray"}  # of NumPy 1 and 2
GLOBALS = {("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"), ("multiarray", "_reconstruct")}


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass
class _Type:
    """In the place of NumPy's dtype."""

    name: bytes | str


@dataclass
class Array:
    """In the place of NumPy's array, which would take any memory it is asked for."""

    values: np.ndarray | None = None  # uint8


def load_pickle(pickled: bytes) -> dict[bytes, Any]:
    """The dictionary in a pickle of protocol 2 or later. Its keys are bytes, in UTF-8 where they were texts.

    Raises BadSource if it names a function that CIFAR's pickles do not, and any other error if it is damaged.
    """
    machine = _Machine(len(pickled))
    for opcode, argument, _ in pickletools.genops(pickled):
        machine.run(opcode.name, argument)
    (content,) = machine.stack
    if not isinstance(content, dict):
        raise ValueError("not a dictionary")
    return content


class _Machine:
    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # sizes of the stack
        self.memo: dict[int, Any] = {}
        self.left = size  # characters that may be encoded yet: texts can be taken from the memo many times

    def run(self, name: str, argument: Any) -> None:
        """Run one instruction."""
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "APPEND" | "APPENDS":
                values = self._pop(1) if name == "APPEND" else self._pop_to_mark()
                self._top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._pop(2) if name == "SETITEM" else self._pop_to_mark()
                self._top(dict).update(zip(map(_key, values[::2]), values[1::2], strict=True))
            case "BUILD":
                (state,) = self._pop(1)
                _build(self.stack[-1], state)
            case _:
                self.stack.append(self._made(name, argument))

    def _made(self, name: str, argument: Any) -> Any:
        """What an instruction puts on the stack."""
        if name in VALUES:
            return argument
        if name in BYTE_STRINGS:
            return argument.encode("latin1")
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in TUPLES or name == "TUPLE":
            return tuple(self._pop(TUPLES[name]) if name in TUPLES else self._pop_to_mark())
        if name in ("BINGET", "LONG_BINGET"):
            return self.memo[argument]
        if name in ("EMPTY_DICT", "EMPTY_LIST"):
            return {} if name == "EMPTY_DICT" else []
        if name in ("GLOBAL", "STACK_GLOBAL"):
            return _find(*(argument.split(" ", 1) if name == "GLOBAL" else self._pop(2)))
        if name == "REDUCE":
            return self._call(*self._pop(2))
        raise ValueError(f"the instruction {name}, which it never has")

    def _call(self, function: object, arguments: tuple[Any, ...]) -> Any:
        match function:
            case _Global("_reconstruct"):
                return Array()
            case _Global("dtype"):
                return _Type(arguments[0])
            case _Global("encode"):
                text, _ = arguments
                self.left -= len(text)
                if self.left < 0:
                    raise ValueError("texts that would take memory")
                return text.encode("latin1")
        raise ValueError("a call of what is no function")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("too few values")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"no {kind.__name__} where one is to be filled")
        return self.stack[-1]


def _key(key: object) -> bytes:
    """A key, looked at before it is hashed."""
    if not isinstance(key, bytes | str):
        raise ValueError("a key that is no text")
    return key.encode() if isinstance(key, str) else key


def _find(module: object, name: object) -> _Global:
    if not isinstance(module, str) or not isinstance(name, str):  # before they are hashed
        raise ValueError("a function without a name")
    if (MODULES.get(module, module), name) not in GLOBALS:
        raise BadSource(
            f"it asks for {module[:100]}.{name[:100]}, which CIFAR's archive never does: refused, it may be malicious"
        )
    return _Global(name)


def _build(made: object, state: tuple[Any, ...]) -> None:
    """Give an array its values. A type's state, its byte order and alignment, tells nothing of bytes."""
    if isinstance(made, _Type):
        return
    _, shape, kind, is_fortran, content = state
    if not isinstance(made, Array) or kind.name not in (b"u1", "u1") or is_fortran:
        raise ValueError("an array of other values than bytes, row by row")
    made.values = np.frombuffer(content, np.uint8).reshape(shape)

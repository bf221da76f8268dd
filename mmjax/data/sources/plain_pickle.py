"""Pickled files of plain values and numpy arrays, read as data: nothing that a pickle names is imported or called.

A pickle is a program for a stack machine. `pickletools` only lists its steps; those that build dicts, lists, numbers,
text and arrays are followed here, and any other is refused. That a file may hold nothing else costs nothing: aligned
features are arrays in dicts.
"""

from __future__ import annotations

import math
import os
import pickletools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = re.compile(r"(SHORT_)?(BIN)?(UNICODE|BYTES|STRING)8?|BYTEARRAY8|(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT")
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d+|O8?|\|O")
_NUMPY = re.compile(r"numpy\._?core\.")
_MOST = 2**48
"""What the sizes of an array, apart from zeros, may multiply to: more than any file holds."""


class _Refused(Exception):
    """A step that makes more than plain values."""


class _Dtype:
    """A dtype, whose byte order comes in a later step."""

    def __init__(self, name: Any = None, align: Any = False, copy: Any = True):
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            raise _Refused(f"it holds an array of the type {name!r}")
        self.dtype = np.dtype(name)

    def build(self, state: Sequence[Any]) -> None:
        """Takes the byte order of a numpy state (version, order, ...)."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _empty(kind: Any = None, shape: Any = None, code: Any = None) -> np.ndarray:
    if kind is not np.ndarray:
        raise _Refused("it holds an array of a class of its own")
    return np.ndarray.__new__(np.ndarray, (0,), np.int8)


def _fill(array: np.ndarray, state: Sequence[Any]) -> None:
    """Gives an empty array the shape, type and values of a numpy state, after a check of all three."""
    _, shape, dtype, fortran, data = state
    dtype, shape = dtype.dtype, _shape(shape)
    data = data.encode("latin-1") if isinstance(data, str) else data  # written by Python 2
    if not isinstance(data, list if dtype.hasobject else bytes):
        raise _Refused("it holds an array without its values")
    count = math.prod(shape)
    if count > len(data) or len(data) != count * (1 if dtype.hasobject else dtype.itemsize):  # numpy trusts a list
        raise _Refused(f"it holds an array of the shape {shape} with {len(data)} values or bytes")
    array.__setstate__((1, shape, dtype, bool(fortran), data))


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not sizes or math.prod(size for size in shape if size) > _MOST:
        raise _Refused(f"it holds an array of the shape {shape!r}")
    return shape


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(data, dtype.dtype).reshape(_shape(shape), order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> Any:
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype.dtype)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding != "latin1":
        raise _Refused(f"it holds bytes in the encoding {encoding!r}")
    return text.encode(encoding)


_KNOWN: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": _Dtype,
    "multiarray._reconstruct": _empty,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
    **dict.fromkeys(("builtins.bytes", "__builtin__.bytes"), lambda: b""),
}
"""What a pickle may name -> what stands for it here; numpy's modules of both majors without 'numpy.core.'."""


def _named(name: str) -> Any:
    short = _NUMPY.sub("", name)
    if short not in _KNOWN:
        raise _Refused(f"it asks for {name}")
    return _KNOWN[short]


class _Machine:
    """The stack, the memo, and the steps that are followed."""

    def __init__(self):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def since_mark(self) -> list[Any]:
        """Pops everything above the last mark, and the mark."""
        at = len(self.stack) - 1 - next(i for i, value in enumerate(reversed(self.stack)) if value is _MARK)
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def step(self, name: str, arg: Any) -> None:
        """Follows one step.

        Raises:
          _Refused: it is none of those that make plain values.
        """
        if _VALUES.fullmatch(name):
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _STEPS:
            _STEPS[name](self, arg)
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"it takes the step {name}")

    def put(self, arg: Any) -> None:
        """Remembers the top of the stack."""
        self.memo[len(self.memo) if arg is None else arg] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        """Makes a tuple of the last values."""
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def extend(self, values: Sequence[Any]) -> None:
        """Puts values at the end of the list on top."""
        list.extend(self.stack[-1], values)

    def update(self, values: Sequence[Any]) -> None:
        """Puts keys and values, in turn, into the dict on top."""
        dict.update(self.stack[-1], zip(values[::2], values[1::2], strict=True))

    def reduce(self) -> None:
        """Calls what stands for a known name."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is known for known in _KNOWN.values()) or function is np.ndarray:
            raise _Refused("it calls what it made itself")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        """Fills an array or a dtype."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Dtype):
            made.build(state)
        elif isinstance(made, np.ndarray) and made.shape == (0,):
            _fill(made, state)
        else:
            raise _Refused(f"it sets the state of a {type(made).__name__}")

    def pop_pair(self) -> list[Any]:
        """Pops the last two values."""
        pair = self.stack[-2:]
        del self.stack[-2:]
        return pair


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda m, _: m.stack.append(_MARK),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "DICT": lambda m, _: (values := m.since_mark(), m.stack.append({}), m.update(values)),
    "APPEND": lambda m, _: (value := m.stack.pop(), m.extend([value])),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.update(m.pop_pair()),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"), lambda m, arg: m.put(arg)),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda m, arg: m.stack.append(m.memo[arg])),
    "GLOBAL": lambda m, arg: m.stack.append(_named(arg.replace(" ", "."))),
    "STACK_GLOBAL": lambda m, _: m.stack.append(_named(".".join(m.pop_pair()))),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Returns what a pickled file holds: dicts, lists, tuples, numbers, text, bytes and numpy arrays of these.

    Raises:
      UserError: the file is no pickle, is cut short, or would make or call anything else.
    """
    machine, name = _Machine(), ""
    try:
        with open(path, "rb") as file:
            for opcode, arg, _ in pickletools.genops(file):
                name = opcode.name
                if name != "STOP":
                    machine.step(name, arg)
        (value,) = machine.stack
        return value
    except _Refused as error:
        raise UserError(
            f"{path}: a pickle may run any code when it is loaded, so only those of plain numpy arrays in dicts and "
            f"lists are read, and as data alone; but {error}. Convert it to HDF5 where you trust it."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # a damaged file may take any step at any time
        raise UserError(f"{path}: is no pickle, or a damaged one: {error or name or 'it is empty'}.") from None

"""Reading of a compiled program: its instructions, how often each runs, and what its compiler says of it.

The text of an optimised XLA module is the one place where the TPU compiler's own estimates are: `estimated_cycles` in
the `backend_config` of fusions. A loop's body stands there once; how often it runs follows from the comparison that
ends it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|branch_computations|true_computation|false_computation)=(?:\{([^}]*)\}|([^\s,}]+))"
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FREE = ("parameter", "get-tuple-element", "tuple", "while", "bitcast", "constant")
"""Opcodes that make no array of their own."""
_BITS = {"pred": 8, "bf16": 16, "token": 0}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode, shape: as written; shape is that of the result.
      operands: names.
      rest: the attributes, unparsed.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    rest: str

    @property
    def op_name(self) -> str:
        """Where in the traced function it comes from, '' where the compiler made it."""
        return self._quoted("op_name")

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one run, 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found.group(1)) if found else 0

    @property
    def bytes(self) -> int:
        """Of the result, without the padding of its layout."""
        return bytes_of(self.shape)

    def arrays(self) -> list[str]:
        """Returns the shapes of the result: one, or the elements of a tuple."""
        return _elements(self.shape) if self.shape.startswith("(") else [self.shape]

    def _quoted(self, key: str) -> str:
        found = re.search(rf'{key}="([^"]*)"', self.rest)
        return found.group(1) if found else ""


def bytes_of(shape: str) -> int:
    """Returns the bytes of all arrays in a shape such as 'f32[8,128]' or '(bf16[4], s32[])'."""
    total = 0
    for dtype, sizes in _ARRAY.findall(shape):
        digits = re.match(r"[a-z]+(\d+)", dtype)
        bits = _BITS.get(dtype) if dtype in _BITS else int(digits.group(1)) if digits else 0
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits
    return total // 8


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled module.

    Attributes:
      computations: name -> its instructions in order.
      entry: name of the computation that runs.
      partitions: devices that the module says it runs on, of one slice where there are several; 0 where it says none.
    """

    computations: dict[str, list[Instruction]]
    entry: str
    partitions: int = 0

    def runs(self) -> Iterator[tuple[Instruction, int]]:
        """Yields every instruction that runs as one unit, with the number of times; of branches, all are counted.

        The bodies of loops, calls and asynchronous wrappers are entered; fusions are not, as their cost is their own.
        """
        yield from self._runs(self.entry, 1)

    def _runs(self, computation: str, times: int) -> Iterator[tuple[Instruction, int]]:
        for instruction in self.computations[computation]:
            yield instruction, times
            if instruction.opcode in ("while", "call", "conditional", "async-start"):
                trips = self.trips(instruction) if instruction.opcode == "while" else 1
                for name in called(instruction):
                    yield from self._runs(name, times * trips)

    def source(self, instruction: Instruction) -> str:
        """Returns where an instruction comes from: its own op_name, or that of the last one in it that has any."""
        if instruction.op_name:
            return instruction.op_name
        inner = [self.source(one) for name in called(instruction) for one in self.computations.get(name, ())]
        return next((name for name in reversed(inner) if name), "")

    def moved(self, collective: Instruction) -> int:
        """Returns the bytes of a collective's result; of one that only starts, the larger of what goes in and out.

        An all-reduce that starts gives one array for each operand, some with the operands behind them.
        """
        sizes = list(map(bytes_of, collective.arrays()))
        if collective.opcode == "all-reduce-start":
            return sum(sizes[: len(collective.operands)])
        return max(sizes) if collective.opcode.endswith("-start") else collective.bytes

    def fused_collective(self, fusion: Instruction) -> Instruction | None:
        """Returns the collective that a fusion is, or None.

        The TPU compiler has two such: one that starts a collective, whose steps other fusions then carry along with
        their own work, and an all-reduce of which each device keeps a part.
        """
        inner = called(fusion)[0]
        if not (fusion.name.startswith("async-collective-start") or inner.startswith("all-reduce-scatter")):
            return None
        inside = (one for one in self.computations[inner] if one.opcode.removesuffix("-start") in COLLECTIVES)
        return next(inside, None)

    def trips(self, loop: Instruction) -> int:
        """Returns how often the body of a `while` runs: its condition is that a counter from 0 is below a constant."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
        if known:
            return int(known.group(1))
        name = re.search(r"condition=%?([\w.\-]+)", loop.rest).group(1)
        condition = {instruction.name: instruction for instruction in self.computations[name]}
        limits = []
        for instruction in condition.values():
            if "direction=LT" in instruction.rest:
                bound = [condition[name] for name in instruction.operands if condition[name].opcode == "constant"]
                limits += [int(value.rest.partition(")")[0]) for value in bound]
        return max(limits, default=1)


def called(instruction: Instruction) -> list[str]:
    """Returns the names of the computations that an instruction runs."""
    groups = (several or alone for several, alone in _CALLED.findall(instruction.rest))
    return [name.strip("% ") for group in groups for name in group.split(",")]


def _elements(shape: str) -> list[str]:
    """Returns the elements of a tuple's shape: '(f32[2], (s32[], pred[]))' -> ['f32[2]', '(s32[], pred[])']."""
    parts, depth, start = [], 0, 1
    for found in re.compile(r"[(){}\[\],]").finditer(shape, 1, len(shape) - 1):
        depth += {"(": 1, "{": 1, "[": 1, ",": 0}.get(found.group(), -1)
        if found.group() == "," and depth == 0:
            parts.append(shape[start : found.start()].strip())
            start = found.end()
    return [*parts, shape[start:-1].strip()]


def parse(text: str) -> Program:
    """Returns the program of an optimised module's text (`compiled.as_text()`)."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif current is not None and (start := _INSTRUCTION.match(line)):
            current.append(_instruction(start.group(2), line[start.end() :]))
    partitions = re.match(r"HloModule .*\bnum_partitions=(\d+)", text)
    return Program(computations, entry, int(partitions.group(1)) if partitions else 0)


def _instruction(name: str, text: str) -> Instruction:
    shape_end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode, _, _ = text[shape_end + 1 :].partition("(")
    opening = shape_end + 1 + len(opcode)
    closing = _closing(text, opening)
    inside = text[opening + 1 : closing]
    rest = text[opening + 1 :] if opcode == "constant" else text[closing + 1 :]
    return Instruction(name, opcode, text[:shape_end], tuple(_OPERAND.findall(inside)), rest)


def _closing(text: str, opening: int) -> int:
    """Returns the place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.start()
    return len(text) - 1

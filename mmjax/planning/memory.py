"""What a step needs of one device's memory, and what takes most of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax

from mmjax.core.trees import flatten
from mmjax.planning.compile import Step
from mmjax.planning.estimate import part_of
from mmjax.planning.hlo import FREE, Program, bytes_of
from mmjax.planning.refusal import DoesNotFit


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      arguments: of the state and the batch; outputs: those that do not take an argument's place.
      temporaries: alive during the step, at their highest.
      needed: all of them; capacity: what a program may use, None where that is not known.
      state: part of the state -> bytes.
      largest: (bytes, what it is) of the largest temporary arrays, by the compiler's program; of a step that it
        refuses, those that it names.
    """

    arguments: int
    outputs: int
    temporaries: int
    needed: int
    capacity: int | None
    state: dict[str, int]
    largest: list[tuple[int, str]]

    @property
    def fits(self) -> bool:
        """Whether it has room."""
        return self.capacity is None or self.needed <= self.capacity


def memory_of(step: Step, compiled: Any, program: Program, capacity: int | None) -> Memory:
    """Returns the memory of a step that is compiled."""
    found = compiled.memory_analysis()
    arguments, temporaries = found.argument_size_in_bytes, found.temp_size_in_bytes
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    needed = arguments + outputs + temporaries + found.generated_code_size_in_bytes
    return Memory(arguments, outputs, temporaries, needed, capacity, _state_bytes(step), _largest(program))


def memory_of_refused(step: Step, error: DoesNotFit) -> Memory:
    """Returns what is known of a step that the compiler refuses: the state, and what it needs in all."""
    state = _state_bytes(step)
    needed = error.needed + (sum(state.values()) if error.temporaries else 0)
    return Memory(0, 0, 0, needed, error.available, state, error.largest)


def _state_bytes(step: Step) -> dict[str, int]:
    """Returns part of the state -> bytes on one device, without the padding of layouts."""
    sizes: dict[str, int] = {}
    for path, leaf in flatten(step.trainer.abstract).items():
        name = path.partition("/")[0]
        shard = leaf.sharding.shard_shape(leaf.shape)
        sizes[name] = sizes.get(name, 0) + math.prod(shard) * leaf.dtype.itemsize
    shards = jax.tree.leaves(step.batch)
    sizes["batch"] = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in shards)
    return sizes


def _largest(program: Program, count: int = 5) -> list[tuple[int, str]]:
    """Returns the largest arrays that instructions make outside of on-chip memory, each shape and source once."""
    found: dict[str, int] = {}
    for instruction, _ in program.runs():
        if instruction.opcode in FREE:
            continue
        for shape in instruction.arrays():
            if "S(1)" in shape:  # on-chip memory
                continue
            what = f"{shape.partition('{')[0]} {part_of(program.source(instruction))}"
            found[what] = bytes_of(shape)
    return sorted(((size, what) for what, size in found.items()), reverse=True)[:count]

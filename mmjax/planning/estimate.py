"""Time of a compiled step: the compiler's cycles by part of the model, and its collectives at an assumed bandwidth."""

from __future__ import annotations

import collections
import dataclasses
import math
import re

from mmjax.planning.chips import Chip
from mmjax.planning.hlo import COLLECTIVES, Instruction, Program

_PARTS = (
    (r"\b(?:optimizer|balance|loss)\b", "{0}"),
    (r"\bencoders_(\w+?)\b.*\battention_core\b", "{1}: attention core"),
    (r"\b(?:encoders|decoders)_(\w+?)\b", "{1}"),
    (r"\battention_core\b", "attention core"),
    (r"\b(?:fusion|missing)\b", "{0}"),
)
"""(pattern of the path of an operation, name of its part); the first that is found wins."""

_OBJECTIVE = r"\bobjective_(\w+?)\b"
"""Names the objective of a task that an operation is for, where the task tells several apart."""


def part_of(op_name: str) -> str:
    """Returns the part of the model that an operation belongs to: 'image', 'image: attention core', 'loss', ...

    Before it stands the objective, where there are several: 'contrastive: image'.
    """
    objective = re.search(_OBJECTIVE, op_name)
    prefix = f"{objective.group(1)}: " if objective else ""
    for pattern, name in _PARTS:
        if found := re.search(pattern, op_name):
            return prefix + name.format(found.group(0), *found.groups())
    return prefix + "other"


def cycles_by_part(program: Program) -> dict[str, int]:
    """Returns part of the model -> the compiler's estimated cycles of a step on one device, the dearest first."""
    total: collections.Counter[str] = collections.Counter()
    for instruction, times in program.runs():
        if cycles := instruction.cycles:
            total[part_of(program.source(instruction))] += cycles * times
    return dict(total.most_common())


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step.

    Attributes:
      count: how many run.
      wire_bytes: that one device sends, by the ring algorithm.
      seconds: at the assumed bandwidth.
    """

    count: int = 0
    wire_bytes: float = 0.0
    seconds: float = 0.0


def collectives(program: Program, devices: int, chip: Chip | None, slices: int = 1) -> dict[str, Collective]:
    """Returns kind -> Collective of a step.

    A group that spans slices is charged to the network, any other to one ring of the torus; on a chip that is not
    known seconds are 0.
    """
    found: dict[str, Collective] = {}
    for instruction, times in program.runs():
        one = program.fused_collective(instruction) if instruction.opcode == "fusion" else instruction
        kind = one.opcode.removesuffix("-start") if one else ""
        if kind not in COLLECTIVES:
            continue
        if one is not instruction and kind == "all-reduce":
            kind = "reduce-scatter"  # of what the all-reduce in it gives, each device keeps a part
        group = _group_size(one, devices)
        sent = times * _sent(kind, one, program, group)
        bandwidth = math.inf if chip is None else chip.network if group * slices > devices else chip.ring
        old = found.get(kind, Collective())
        found[kind] = Collective(old.count + times, old.wire_bytes + sent, old.seconds + sent / bandwidth)
    return found


def _sent(kind: str, instruction: Instruction, program: Program, group: int) -> float:
    """Returns the bytes that one device sends: ring algorithms pass (n - 1) / n of the whole round, or twice that."""
    share = (group - 1) / group
    if kind == "collective-permute":
        return program.moved(instruction)
    if kind == "all-reduce":
        return 2 * share * program.moved(instruction)
    if instruction.opcode.startswith("reduce-scatter"):
        return share * group * program.moved(instruction)  # moved: the scattered result
    return share * program.moved(instruction)


def _group_size(instruction: Instruction, devices: int) -> int:
    """Returns the number of devices that one collective joins, from any of the forms that groups are written in."""
    rest = instruction.rest
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):  # iota: [groups, size]
        return int(found.group(2))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):  # named axes of a mesh
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found.group(2)) if axis in sizes)
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(found.group(1).split(","))
    return devices

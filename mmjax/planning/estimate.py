"""Time of a compiled step: the compiler's cycles by part of the model, and its collectives at an assumed bandwidth."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

from mmjax.planning.chips import Chip
from mmjax.planning.groups import groups_of, span
from mmjax.planning.hlo import COLLECTIVES, FREE, Instruction, Program, bytes_of

_PARTS = (
    (r"\b(?:optimizer|balance|loss)\b", "{0}"),
    (r"\bencoders_(\w+?)\b.*\battention_core\b", "{1}: attention core"),
    (r"\b(?:encoders|decoders)_(\w+?)\b", "{1}"),
    (r"\battention_core\b", "attention core"),
    (r"\b(?:fusion|missing)\b", "{0}"),
    (r"^broadcast\.\d+$", "zeros that scans over layers begin with"),
)
"""(pattern of the path of an operation, name of its part); the first that is found wins."""

_BESIDE = re.compile(r".*-(?:start|done|update)$|send|recv|after-all|partition-id|" + "|".join(COLLECTIVES))
"""Opcodes of what moves data, or only orders it."""

_BETWEEN = re.compile(r'_xla_megascale_transfer_type="(\w+)"')

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


def operations(program: Program) -> tuple[int, int]:
    """Returns how many operations a step runs on one device, and for how many of them the compiler gives no cycles.

    Collectives, and copies that go on beside other work, are none of them.
    """
    total = without = 0
    for instruction, times in program.runs():
        if instruction.opcode not in FREE and not _BESIDE.match(instruction.opcode):
            total += times
            without += 0 if instruction.cycles else times
    return total, without


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step.

    Attributes:
      count: how many run.
      wire_bytes: that one device sends, by the ring algorithm.
      seconds: at the assumed bandwidth; nan where it is not known.
    """

    count: int = 0
    wire_bytes: float = 0.0
    seconds: float = 0.0


def collectives(program: Program, devices: int, chip: Chip | None, slices: Sequence[int] = ()) -> dict[str, Collective]:
    """Returns kind -> Collective of a step.

    What crosses slices is charged to the network, the rest to one ring of the torus; on a chip that is not known
    seconds are nan. libtpu splits a collective over slices in two: one within each, and '... between slices'.

    Args:
      program: of the step.
      devices: that it runs on.
      chip: whose bandwidths are assumed.
      slices: the slice of each device of the mesh, row by row; none: all are of one.
    """
    slices = list(slices) or [0] * devices
    found: dict[str, Collective] = {}
    for instruction, times in program.runs():
        kind, once, network = _transfer(instruction, program, slices)
        if not kind:
            continue
        sent = times * once
        bandwidth = math.nan if chip is None else chip.network if network else chip.ring
        old = found.get(kind, Collective())
        found[kind] = Collective(old.count + times, old.wire_bytes + sent, old.seconds + sent / bandwidth)
    return found


def _transfer(instruction: Instruction, program: Program, slices: list[int]) -> tuple[str, float, bool]:
    """Returns (kind, bytes that one device sends, whether over the network), ('', 0, False) of what sends nothing."""
    if instruction.opcode == "send" and (found := _BETWEEN.search(instruction.rest)):
        kind, payload = found.group(1).lower().replace("_", "-"), bytes_of(instruction.arrays()[0])
        return f"{kind} between slices", _between(kind, payload, len(set(slices))), True
    one = program.fused_collective(instruction) if instruction.opcode == "fusion" else instruction
    kind = one.opcode.removesuffix("-start") if one else ""
    if kind not in COLLECTIVES:
        return "", 0.0, False
    if one is not instruction and kind == "all-reduce":
        kind = "reduce-scatter"  # of what the all-reduce in it gives, each device keeps a part
    groups = groups_of(one.rest, program.partitions or len(slices))
    return kind, _sent(kind, one, program, max(map(len, groups))), span(groups, slices)


def _between(kind: str, payload: int, slices: int) -> float:
    """Returns the bytes that one device sends to other slices; payload: what it gives to the network's runtime."""
    if kind == "one-to-one":
        return payload
    rounds = {"all-reduce": 2, "all-gather": slices}.get(kind, 1)
    return rounds * (slices - 1) / slices * payload


def _sent(kind: str, instruction: Instruction, program: Program, group: int) -> float:
    """Returns the bytes that one device sends: ring algorithms pass (n - 1) / n of the whole round, or twice that."""
    share = (group - 1) / group
    if kind == "collective-permute":
        return program.moved(instruction)
    if kind == "all-reduce":
        return 2 * share * program.moved(instruction)
    if instruction.opcode == "reduce-scatter":  # of one that starts, what goes in is known
        return share * group * program.moved(instruction)  # moved: the scattered result
    return share * program.moved(instruction)

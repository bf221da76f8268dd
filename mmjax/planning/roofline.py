"""Time of a step where the compiler gives no cycles: what it must compute and move at the published peak of both."""

from __future__ import annotations

from collections.abc import Mapping

from mmjax.planning.chips import Chip
from mmjax.planning.hlo import FREE, Instruction, Program, called

ARITHMETIC, TRAFFIC = "roofline: arithmetic", "roofline: memory"


def roofline(flops: float, program: Program, chip: Chip) -> dict[str, float]:
    """Returns the one bound that holds, its name -> seconds: of arithmetic no step is faster; of memory by an estimate.

    Args:
      flops: of the matrix products of one device.
      program: of the step, for the bytes that it moves.
      chip: with `peak_flops` and `bandwidth`.

    References:
      Williams et al., Roofline: An Insightful Visual Performance Model, 2009, section 3.
    """
    arithmetic, memory = flops / chip.peak_flops, 2 * written(program) / chip.bandwidth
    return {ARITHMETIC: arithmetic} if arithmetic >= memory else {TRAFFIC: memory}


def written(program: Program) -> int:
    """Returns about how many bytes a step writes; each is taken to be read once."""
    return sum(times * _made(one, program) for one, times in program.runs() if not _makes_nothing(one))


def _makes_nothing(instruction: Instruction) -> bool:
    return instruction.opcode in FREE or instruction.opcode.endswith("-start")  # its end gives the same array


def _made(instruction: Instruction, program: Program) -> int:
    """Returns the bytes of a result; of the arrays that a fusion updates in place, those of the updates."""
    if instruction.opcode != "fusion":
        return instruction.bytes
    inside = {one.name: one for one in program.computations[called(instruction)[0]]}
    root = list(inside.values())[-1]
    results = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return sum(_updated(one, inside) for one in results)


def _updated(result: Instruction, inside: Mapping[str, Instruction]) -> int:
    origin = result
    while origin.opcode == "bitcast":
        origin = inside[origin.operands[0]]
    return inside[origin.operands[1]].bytes if origin.opcode == "dynamic-update-slice" else result.bytes

"""Time of a step where the compiler gives no cycles: what it must compute and move at the published peak of both."""

from __future__ import annotations

from mmjax.planning.chips import Chip
from mmjax.planning.hlo import FREE, Instruction, Program, bytes_of, called

ARITHMETIC, TRAFFIC = "roofline: arithmetic", "roofline: memory"


def roofline(flops: float, program: Program, chip: Chip) -> dict[str, float]:
    """Returns the one bound that holds, its name -> seconds: no step is faster, and most are slower.

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
    """Returns the bytes of all arrays that a step writes; each is taken to be read once."""
    return sum(times * _made(one, program) for one, times in program.runs() if one.opcode not in FREE)


def _made(instruction: Instruction, program: Program) -> int:
    """Returns the bytes of a result; of an array that is updated in place, those of the update."""
    around = []
    if instruction.opcode == "fusion":
        around = program.computations[called(instruction)[0]]
        instruction = around[-1] if around[-1].opcode == "dynamic-update-slice" else instruction
    if instruction.opcode == "dynamic-update-slice" and around:
        shapes = {one.name: one.shape for one in around}
        return bytes_of(shapes[instruction.operands[1]])
    return instruction.bytes

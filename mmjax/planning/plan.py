"""The plan of a run on devices that one need not own: does it fit, how fast is it, what limits it."""

from __future__ import annotations

import dataclasses
import math
import time

import fiddle as fdl
import jax

from mmjax.core.mesh import slice_of
from mmjax.planning import estimate
from mmjax.planning.chips import Chip
from mmjax.planning.compile import model_flops, trace
from mmjax.planning.estimate import Collective
from mmjax.planning.hlo import Program, parse
from mmjax.planning.memory import Memory, memory_of, memory_of_refused
from mmjax.planning.refusal import DoesNotFit
from mmjax.planning.roofline import roofline
from mmjax.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known beforehand of one step; see `record` for what is evidence and what is assumption.

    Attributes:
      topology, devices, hosts: as asked for.
      batch_size, mesh, micro_batches: of the config.
      parameters: of the model.
      memory: of one device; see `memory` for what is known of a step that the compiler refuses.
      model_flops: that the model asks for a step; hardware_flops: that are run, with what is computed twice.
      parts: part of the model -> seconds by the compiler's cycles, or the bound of a roofline; empty where neither is.
      collectives: kind -> Collective.
      batch_bytes: of one global batch as it goes to the devices.
      compile_seconds: of tracing, lowering and compiling here.
      peak_flops: of all devices; 0 where it is not known.
      chip: what is assumed of one device, None where nothing is known.
      operations: that a step runs on one device; without_cycles: those that the compiler estimates no cycles for, which
        count 0. Both leave out what moves data by itself.
    """

    topology: str
    devices: int
    hosts: int
    batch_size: int
    mesh: dict[str, int]
    micro_batches: int
    parameters: int
    memory: Memory
    model_flops: int
    hardware_flops: int
    parts: dict[str, float]
    collectives: dict[str, Collective]
    batch_bytes: int
    compile_seconds: float
    peak_flops: float
    chip: Chip | None = None
    operations: int = 0
    without_cycles: int = 0

    @property
    def compute_seconds(self) -> float:
        """Of a step without communication; nan where it is not known."""
        return sum(self.parts.values()) if self.parts else math.nan

    @property
    def communication_seconds(self) -> float:
        """Of all collectives, none of them hidden behind computation; nan where the bandwidth is not known."""
        if self.chip is not None and not self.parts:  # a step that the compiler refuses
            return math.nan
        return sum(one.seconds for one in self.collectives.values())

    @property
    def seconds(self) -> float:
        """Of a step with all of its communication."""
        return self.compute_seconds + self.communication_seconds

    def mfu(self, seconds: float) -> float:
        """Returns the model FLOPs utilisation of a step of that length."""
        return self.model_flops / (seconds * self.peak_flops) if self.peak_flops else math.nan

    @property
    def examples_per_host(self) -> float:
        """Examples a second that each host must make."""
        return self.batch_size / self.compute_seconds / self.hosts

    @property
    def bytes_per_host(self) -> float:
        """Bytes a second that each host must make."""
        return self.batch_bytes / self.compute_seconds / self.hosts

    @property
    def chip_hours(self) -> float:
        """For a billion examples, with all communication."""
        return self.devices * self.seconds / self.batch_size * 1e9 / 3600


def make_plan(config: fdl.Config, topology: Topology, asked_flops: int | None = None) -> Plan:
    """Returns the plan of a config on a topology.

    Args:
      config: see `compile.configured`.
      topology: to plan for.
      asked_flops: see `compile.model_flops`, where they are known already.

    Raises:
      UserError: anything wrong with config, mesh or batch.
    """
    begin = time.monotonic()
    step = trace(config, topology.devices)
    capacity = topology.chip.memory if topology.chip else None
    try:
        compiled = step.compile()
        program = parse(compiled.as_text())
        memory = memory_of(step, compiled, program, capacity)
    except DoesNotFit as error:
        program, memory = Program({"": []}, ""), memory_of_refused(step, error)
    seconds = time.monotonic() - begin
    chip, devices, flops = topology.chip, len(topology.devices), step.flops
    operations, without_cycles = estimate.operations(program)
    leaves = jax.tree.leaves(step.batch)
    return Plan(
        topology=topology.name,
        devices=devices,
        hosts=topology.hosts,
        batch_size=step.experiment.data.batch_size,
        mesh=dict(step.trainer.mesh.shape),
        micro_batches=step.experiment.micro_batches,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(step.trainer.abstract.params)),
        memory=memory,
        model_flops=model_flops(config, topology.devices[0]) if asked_flops is None else asked_flops,
        hardware_flops=flops,
        parts=_parts(flops / devices, program, chip),
        collectives=estimate.collectives(program, devices, chip, list(map(slice_of, step.trainer.mesh.devices.flat))),
        batch_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        compile_seconds=seconds,
        peak_flops=chip.peak_flops * devices if chip else 0.0,
        chip=chip,
        operations=operations,
        without_cycles=without_cycles,
    )


def _parts(flops: float, program: Program, chip: Chip | None) -> dict[str, float]:
    """Returns part of the model -> seconds; flops: of one device. Of a program that was refused nothing is known."""
    if chip is None or not program.computations[program.entry]:
        return {}
    if chip.clock is None:
        return roofline(flops, program, chip)
    return {name: count / chip.clock for name, count in estimate.cycles_by_part(program).items()}

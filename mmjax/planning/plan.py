"""The plan of a run on devices that one need not own: does it fit, how fast is it, what limits it."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import fiddle as fdl
import jax

from mmjax.core.trees import flatten
from mmjax.planning import estimate
from mmjax.planning.compile import DoesNotFit, Step, model_flops, trace
from mmjax.planning.estimate import Collective
from mmjax.planning.hlo import Program, bytes_of, parse
from mmjax.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      arguments: of the state and the batch; outputs: those that do not take an argument's place.
      temporaries: alive during the step, at their highest.
      needed: all of them; capacity: what a program may use, None where that is not known.
      state: part of the state -> bytes.
      largest: (bytes, what it is) of the largest temporary arrays, by the compiler's program.
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


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known beforehand of one step; see `report` for what is evidence and what is assumption.

    Attributes:
      topology, devices, hosts: as asked for.
      batch_size, mesh, micro_batches: of the config.
      parameters: of the model.
      memory: of one device; of a step that the compiler refuses, only `needed` and `capacity` are known.
      model_flops: that the model asks for a step; hardware_flops: that are run, with what is computed twice.
      parts: part of the model -> seconds by the compiler's cycles; empty where it gives none.
      collectives: kind -> Collective.
      batch_bytes: of one global batch as it goes to the devices.
      compile_seconds: of tracing, lowering and compiling here.
      peak_flops: of all devices; 0 where it is not known.
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

    @property
    def compute_seconds(self) -> float:
        """Of a step without communication; nan where the compiler gives no cycles."""
        return sum(self.parts.values()) if self.parts else math.nan

    @property
    def communication_seconds(self) -> float:
        """Of all collectives, none of them hidden behind computation."""
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

    def to_json(self) -> dict[str, Any]:
        """Returns everything, with what follows from it."""
        derived = {
            "fits": self.memory.fits,
            "compute_seconds": self.compute_seconds,
            "communication_seconds": self.communication_seconds,
            "mfu_without_communication": self.mfu(self.compute_seconds),
            "mfu_with_communication": self.mfu(self.seconds),
            "examples_per_second_per_host": self.examples_per_host,
            "megabytes_per_second_per_host": self.bytes_per_host / 1e6,
            "chip_hours_per_billion_examples": self.chip_hours,
        }
        values = dataclasses.asdict(self) | derived
        return {name: None if value != value else value for name, value in values.items()}  # nan is no JSON


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
        memory = _memory(step, compiled, program, capacity)
    except DoesNotFit as error:
        program = Program({"": []}, "")
        memory = Memory(0, 0, 0, error.needed, error.available, _state_bytes(step), [])
    seconds = time.monotonic() - begin
    chip, devices = topology.chip, len(topology.devices)
    cycles = estimate.cycles_by_part(program) if chip else {}
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
        hardware_flops=step.flops,
        parts={name: count / chip.clock for name, count in cycles.items()},
        collectives=estimate.collectives(program, devices, chip, topology.slices),
        batch_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        compile_seconds=seconds,
        peak_flops=chip.peak_flops * devices if chip else 0.0,
    )


def _memory(step: Step, compiled: Any, program: Program, capacity: int | None) -> Memory:
    found = compiled.memory_analysis()
    arguments, temporaries = found.argument_size_in_bytes, found.temp_size_in_bytes
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    needed = arguments + outputs + temporaries + found.generated_code_size_in_bytes
    return Memory(arguments, outputs, temporaries, needed, capacity, _state_bytes(step), _largest(program))


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
        if instruction.opcode in ("parameter", "get-tuple-element", "tuple", "while", "bitcast", "constant"):
            continue
        for shape in instruction.arrays():
            if "S(1)" in shape:  # on-chip memory
                continue
            what = f"{shape.partition('{')[0]} {estimate.part_of(program.source(instruction))}"
            found[what] = bytes_of(shape)
    return sorted(((size, what) for what, size in found.items()), reverse=True)[:count]

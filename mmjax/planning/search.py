"""Meshes, rematerialisation and micro-batches that make a step fit, and those that make it fast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import fiddle as fdl

from mmjax.core.errors import UserError
from mmjax.planning.chips import GIB
from mmjax.planning.choice import Choice
from mmjax.planning.plan import Plan, make_plan
from mmjax.planning.topology import Topology

REMATS = ("none", "core", "mlp", "full")
FSDP = (1, 2, 4, 8, 16, 32, 64)
TENSOR = (1, 2, 4)
PARTS = (1, 4, 8)

Each = Callable[[Choice, Plan | UserError], None]
"""Is called with every choice and its plan as it is made, or with why the mesh or the batch does not allow it."""


def rank(plan: Plan) -> tuple[bool, float, int]:
    """Returns what to sort plans by, the best first: those that fit, then by time where it is known, then by memory."""
    return not plan.memory.fits, math.inf if math.isnan(plan.seconds) else plan.seconds, plan.memory.needed


def best_of(tried: Mapping[Choice, Plan]) -> Choice:
    """Returns the best choice, whether it fits or not."""
    return min(tried, key=lambda choice: rank(tried[choice]))


def advice(config: fdl.Config, tried: Mapping[Choice, Plan]) -> str:
    """Returns the sentence that says which change makes a plan fit; '' where it fits as it is."""
    best, plan = best_of(tried), tried[best_of(tried)]
    if tried[Choice()].memory.fits:
        return ""
    if not plan.memory.fits:
        return f"Nothing that was tried fits ({len(tried)} tried)."
    return f"It fits with: {best.flags(config)} ({plan.memory.needed / GIB:.1f} GiB)"


def search(config: fdl.Config, topology: Topology, each: Each = lambda choice, plan: None) -> dict[Choice, Plan]:
    """Returns every choice that was tried with its plan, the config as it is (`Choice()`) among them.

    Where that does not fit, `first_fit` comes first. Then one setting is varied at a time, each from the best found
    so far: the mesh's fsdp and tensor axes, rematerialisation, micro-batches, parts of the batch.

    Args:
      config: see `compile.configured`.
      topology: to plan for.
      each: see Each.

    Raises:
      UserError: the config as it is does not allow a plan.
    """
    tried: dict[Choice, Plan] = {}
    tried[Choice()] = make_plan(config, topology)
    each(Choice(), tried[Choice()])
    if not tried[Choice()].memory.fits and first_fit(config, topology, tried, each) is None:
        return tried  # what fits nowhere near is not made fast
    for vary in (_fsdp, _tensor, _remats, _micro_batches, _batch_parts):
        best = best_of(tried)
        _try(config, topology, vary(best, tried[best]), tried, each)
    return tried


def first_fit(
    config: fdl.Config,
    topology: Topology,
    tried: dict[Choice, Plan],
    each: Each = lambda choice, plan: None,
) -> Choice | None:
    """Returns the first choice that fits, of ever more micro-batches, or None.

    With each number of them the state is sharded, all is rematerialised, and both. `tried` holds the plan of `Choice()`
    and takes those that are made.
    """
    mesh = tried[Choice()].mesh
    for choice in dict.fromkeys(choice.without_effect(config, mesh) for choice in _smaller(tried[Choice()])):
        if choice not in tried:
            _try(config, topology, [choice], tried, each)
            if choice in tried and tried[choice].memory.fits:
                return choice
    return None


def _smaller(plan: Plan) -> Iterator[Choice]:
    """Yields choices that need ever less memory: the state in a few shards, at last over all devices."""
    few = 8 if plan.devices % 8 == 0 else plan.devices
    for shards in ((None, few), (plan.devices,)):
        micro_batches = plan.micro_batches
        while micro_batches * plan.devices <= plan.batch_size:
            for remat in (None, "full"):
                for fsdp in shards:
                    yield Choice(fsdp, remat=remat, micro_batches=micro_batches)
            micro_batches *= 2


def _try(
    config: fdl.Config, topology: Topology, choices: Iterable[Choice], tried: dict[Choice, Plan], each: Each
) -> None:
    """Plans the choices that are possible, new and change anything."""
    asked = tried[Choice()]
    for choice in (choice.without_effect(config, asked.mesh) for choice in choices):
        if choice in tried:
            continue
        try:
            tried[choice] = make_plan(choice.apply(config), topology, asked.model_flops)
        except UserError as error:
            each(choice, error)
        else:
            each(choice, tried[choice])


def _fsdp(best: Choice, plan: Plan) -> Iterator[Choice]:
    for size in FSDP:
        if plan.devices % (size * plan.mesh["tensor"]) == 0:
            yield dataclasses.replace(best, fsdp=size)


def _tensor(best: Choice, plan: Plan) -> Iterator[Choice]:
    for size in TENSOR:
        if plan.devices % (size * plan.mesh["fsdp"]) == 0:
            yield dataclasses.replace(best, tensor=size)


def _remats(best: Choice, plan: Plan) -> Iterator[Choice]:
    del plan
    for remat in REMATS:
        yield dataclasses.replace(best, remat=remat)


def _micro_batches(best: Choice, plan: Plan) -> Iterator[Choice]:
    for count in (plan.micro_batches // 2, plan.micro_batches * 2):
        if count:
            yield dataclasses.replace(best, micro_batches=count)


def _batch_parts(best: Choice, plan: Plan) -> Iterator[Choice]:
    del plan
    for parts in PARTS:
        yield dataclasses.replace(best, batch_parts=parts)

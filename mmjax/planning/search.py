"""Meshes, rematerialisation and micro-batches that make a step fit, and those that make it fast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import fiddle as fdl

from mmjax.core.config import set_everywhere
from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape
from mmjax.planning.plan import Plan, make_plan
from mmjax.planning.topology import Topology

REMATS = ("none", "core", "mlp", "full")
FSDP = (1, 4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a search may change of a config; None leaves it as it is.

    Attributes:
      fsdp: size of that mesh axis; data takes the rest.
      remat: of every encoder, fusion and decoder that has a policy.
      micro_batches: of the experiment.
    """

    fsdp: int | None = None
    remat: str | None = None
    micro_batches: int | None = None

    def apply(self, config: fdl.Config) -> fdl.Config:
        """Returns a copy of config with the choice made."""
        config = fdl.deepcopy_with(config)
        if self.fsdp is not None:
            config.mesh = fdl.Config(MeshShape, data=-1, fsdp=self.fsdp)
        if self.remat is not None:
            set_everywhere(config.model, "remat", self.remat, overwrite=True)
        if self.micro_batches is not None:
            config.micro_batches = self.micro_batches
        return config

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in dataclasses.asdict(self).items() if value is not None]
        return ", ".join(parts) or "as configured"


Each = Callable[[Choice, Plan | UserError], None]
"""Is called with every choice and its plan as it is made, or with why the mesh or the batch does not allow it."""


def rank(plan: Plan) -> tuple[bool, float, int]:
    """Returns what to sort plans by, the best first: those that fit, then by time where it is known, then by memory."""
    return not plan.memory.fits, math.inf if math.isnan(plan.seconds) else plan.seconds, plan.memory.needed


def search(config: fdl.Config, topology: Topology, each: Each = lambda choice, plan: None) -> dict[Choice, Plan]:
    """Returns every choice that was tried with its plan, the config as it is (`Choice()`) among them.

    Where that does not fit, `first_fit` comes first. Then one setting is varied at a time, each from the best found
    so far: the mesh, rematerialisation, micro-batches.

    Args:
      config: see `compile.configured`.
      topology: to plan for.
      each: see Each.

    Raises:
      UserError: the config as it is does not allow a plan.
    """
    tried: dict[Choice, Plan] = {}
    tried[best := Choice()] = make_plan(config, topology)
    each(best, tried[best])
    if not tried[best].memory.fits:
        best = first_fit(config, topology, tried, each) or best
    for vary in (_meshes, _remats, _micro_batches):
        best = _try(config, topology, vary(best, tried[best]), tried, each)
    return tried


def first_fit(
    config: fdl.Config,
    topology: Topology,
    tried: dict[Choice, Plan],
    each: Each = lambda choice, plan: None,
) -> Choice | None:
    """Returns the first choice that fits, of ever more micro-batches, without and with the state sharded; or None.

    `tried` holds the plan of `Choice()` and takes those that are made.
    """
    for fsdp in (None, 8):
        micro_batches = tried[Choice()].micro_batches
        while micro_batches * 2 * len(topology.devices) <= tried[Choice()].batch_size:
            micro_batches *= 2
            choice = Choice(fsdp=fsdp, micro_batches=micro_batches)
            _try(config, topology, [choice], tried, each)
            if choice in tried and tried[choice].memory.fits:
                return choice
    return None


def _try(config: fdl.Config, topology: Topology, choices, tried, each) -> Choice:
    """Plans the choices that are possible and new; returns the best of all that were tried."""
    for choice in choices:
        if choice in tried:
            continue
        try:
            tried[choice] = make_plan(choice.apply(config), topology, tried[Choice()].model_flops)
        except UserError as error:
            each(choice, error)
        else:
            each(choice, tried[choice])
    return min(tried, key=lambda choice: rank(tried[choice]))


def _meshes(best: Choice, plan: Plan) -> Iterator[Choice]:
    for size in FSDP:
        if plan.devices % size == 0 and size != plan.mesh["fsdp"]:
            yield dataclasses.replace(best, fsdp=size)


def _remats(best: Choice, plan: Plan) -> Iterator[Choice]:
    del plan
    for remat in REMATS:
        yield dataclasses.replace(best, remat=remat)


def _micro_batches(best: Choice, plan: Plan) -> Iterator[Choice]:
    for count in (plan.micro_batches // 2, plan.micro_batches * 2):
        if count:
            yield dataclasses.replace(best, micro_batches=count)

"""The train step of a config, compiled ahead of time for devices that need not be here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import fiddle as fdl
import jax

from mmjax.core.config import set_everywhere
from mmjax.core.distributed import first_line
from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
from mmjax.core.override import override
from mmjax.core.precision import compute_dtype
from mmjax.core.types import Batch
from mmjax.data.spec import point_at
from mmjax.planning.flops import flops_of, needed
from mmjax.planning.refusal import refusal
from mmjax.planning.standin import without_data
from mmjax.planning.topology import Topology
from mmjax.training.experiment import Experiment, build
from mmjax.training.trainer import Trainer, make_trainer


@dataclasses.dataclass(frozen=True)
class Step:
    """A train step that is traced for devices.

    Attributes:
      experiment, trainer: what is trained.
      batch: shapes of the global batch.
      traced: of jax.
    """

    experiment: Experiment
    trainer: Trainer
    batch: Batch
    traced: Any

    @property
    def flops(self) -> int:
        """Operations of the matrix products of one step, over all devices, with what it computes twice."""
        return flops_of(needed(self.traced.jaxpr.jaxpr))

    def compile(self) -> Any:
        """Returns the compiled step of jax.

        Raises:
          DoesNotFit: the compiler says so.
          UserError: another memory than HBM has no room, or the compiler fails on the step.
        """
        try:
            with jax.set_mesh(self.trainer.mesh):
                return self.traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            raise refusal(str(error)) or UserError(f"the compiler fails on this step: {first_line(error)}") from error


def configured(
    config: fdl.Config, topology: Topology, settings: Sequence[str] = (), data: str | None = None
) -> fdl.Config:
    """Returns a copy of config with the data of a SPEC, PATH=VALUE settings and the topology's precision."""
    config = fdl.deepcopy_with(config)
    if data is not None:
        point_at(config.data, data)
    for setting in settings:
        override(config, setting)
    config.precision = compute_dtype(getattr(config, "precision", "auto"), topology.platform).name
    return config


def trace(config: fdl.Config, devices: Sequence[Any]) -> Step:
    """Returns the step of a config (see `configured`) traced for devices: the very function that trains.

    The config's data need not be there: only its shapes are used.

    Raises:
      UserError: anything wrong with config, mesh or batch.
    """
    experiment: Experiment = build(without_data(config))
    mesh = make_mesh(experiment.mesh, list(devices))
    with jax.set_mesh(mesh):
        trainer = make_trainer(experiment, experiment.data, mesh)
        rows = batch_sharding(mesh)
        batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), experiment.data.element_spec()
        )
        return Step(experiment, trainer, batch, trainer.step.trace(trainer.abstract, batch))


def model_flops(config: fdl.Config, device: Any) -> int:
    """Returns the matrix operations that one step asks for: those of the loss and its gradient on one device, with
    nothing rematerialised and no gradient caching; a frozen part costs its forward pass alone."""
    config = fdl.deepcopy_with(config)
    set_everywhere(config.model, "remat", "none", overwrite=True)
    config.micro_batches = 1
    config.mesh = fdl.Config(MeshShape, data=1)
    return trace(config, [device]).flops

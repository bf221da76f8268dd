"""Experiment: everything that one training run is, in one dataclass that a config file fills in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl
import flax.linen as nn

from mmjax.balance.modulator import Modulator
from mmjax.core.config import construct, set_everywhere
from mmjax.core.errors import at_least
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.precision import compute_dtype
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import Source
from mmjax.data.targets import Target
from mmjax.tasks.task import Task
from mmjax.training import duration, sharding
from mmjax.training.checkpoint import InitFrom, Keep
from mmjax.training.optimizer import Optimizer
from mmjax.training.sharding import Rule
from mmjax.weights.published import Published


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluator on one held-out source, preprocessed as the training data is.

    Attributes:
      source: the records.
      evaluator: see evaluation.evaluator.
      batch_size: of its batches.
      train_source: records that the evaluator learns from (a probe); with the columns of source.
      targets: name -> Target, what the evaluator judges by (the labels of a classification).
    """

    source: Source
    evaluator: Any
    batch_size: int = 128
    train_source: Source | None = None
    targets: Mapping[str, Target] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training run.

    Attributes:
      model: flax module, model(streams, rng) -> Outputs.
      task: what is optimised.
      data: training pipeline; its batch_size is the global batch.
      optimizer: how.
      duration: how long ('300 steps', '10 epochs', '3e9 examples').
      balance: name -> part of the step that watches or changes loss and gradients (mmjax.balance), in this order.
      evaluations: name -> Evaluation.
      evaluate_every: duration between evaluations; the end evaluates too. None: only at the end.
      keep: checkpoints.
      mesh: device mesh.
      rules: sharding of parameters by path, before training.sharding.DEFAULT_RULES.
      precision: matmul dtype: 'auto' (bfloat16 on TPU and GPU, float32 on CPU), 'bfloat16' or 'float32'.
      micro_batches: parts that the batch is embedded in, at the same loss and gradient (grad_cache).
      seed: of initial parameters and noise.
      init_from: weights to begin with.
      teachers: teacher of the model -> the run whose weights it has and keeps; one that is not named has random ones.
      log_every: steps between records of metrics.
      max_skipped_in_row: non-finite updates in a row after which the run stops.
      pretrained: path of a part of the parameters ('encoders_text') -> the published weights that it begins with.
    """

    model: nn.Module
    task: Task
    data: Pipeline
    optimizer: Optimizer
    duration: str | int
    balance: Mapping[str, Modulator] = dataclasses.field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = dataclasses.field(default_factory=dict)
    evaluate_every: str | int | None = None
    keep: Keep = dataclasses.field(default_factory=Keep)
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    rules: Sequence[Rule] = ()
    precision: str = "auto"
    micro_batches: int = 1
    seed: int = 0
    init_from: InitFrom | None = None
    teachers: Mapping[str, InitFrom] = dataclasses.field(default_factory=dict)
    log_every: int = 10
    max_skipped_in_row: int = 10
    pretrained: Mapping[str, Published] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        counts = ("micro_batches", "log_every", "max_skipped_in_row")
        at_least(1, "experiment", **{name: getattr(self, name) for name in counts})


def check_cheap(config: fdl.Config) -> None:
    """Finds mistakes that need no data before data are opened and indexed: of a constructor, a duration, the batch.

    Raises:
      UserError: the first of them.
    """
    alone: Experiment = construct(fdl.copy_with(config, data=None, evaluations={}))
    schedule = alone.optimizer.schedule
    for length in (alone.duration, alone.evaluate_every, alone.keep.every, schedule.warmup, schedule.cooldown):
        if length is not None:
            duration.steps(length, 1, 1)
    sharding.check_batch(config.data.batch_size, make_mesh(alone.mesh), alone.micro_batches)


def build(config: fdl.Config) -> Experiment:
    """Builds an experiment with its precision resolved for this machine.

    The config itself keeps 'auto', so that a checkpoint made on one kind of hardware runs on another.
    """
    return construct(_for_this_machine(config))


def build_model(config: fdl.Config) -> Any:
    """Builds the model of an experiment's config as `build` does, and nothing else of it."""
    return construct(_for_this_machine(config).model)


def _for_this_machine(config: fdl.Config) -> fdl.Config:
    config = fdl.deepcopy_with(config)
    set_everywhere(config.model, "dtype", compute_dtype(getattr(config, "precision", "auto")))
    return config

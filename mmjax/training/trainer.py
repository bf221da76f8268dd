"""Trainer: an experiment bound to a mesh: its jitted, sharded functions and the shape of its state."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError, at_least
from mmjax.core.mesh import batch_sharding
from mmjax.core.types import Batch
from mmjax.data.pipeline import Pipeline
from mmjax.evaluation.evaluator import answers
from mmjax.model import teacher_patterns
from mmjax.tasks.task import Apply, Task, TaskLoss, run
from mmjax.training import duration, sharding, state
from mmjax.training.experiment import Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.state import TrainState
from mmjax.training.step import train_step


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What training needs, compiled lazily; all fields follow from (experiment, data, mesh).

    Attributes:
      mesh: of devices; call the functions under jax.set_mesh(mesh).
      total_steps: of the run.
      to_steps: duration -> steps.
      abstract: TrainState of jax.ShapeDtypeStruct with shardings.
      init: () -> TrainState, fresh, each leaf made where it lives.
      from_params: params -> TrainState at step 0.
      step: (state, batch) -> (state, metrics); gives the buffers of state away.
      embed: (params, batch) -> modality or decoder -> [B, ...]; see `answers`.
    """

    mesh: Mesh
    total_steps: int
    to_steps: Callable[[str | int], int]
    abstract: TrainState
    init: Callable[[], TrainState]
    from_params: Callable[[Any], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    embed: Callable[[Any, Batch], dict[str, jax.Array]]


def make_trainer(experiment: Experiment, data: Pipeline, mesh: Mesh) -> Trainer:
    """Binds experiment to mesh; everything that can be wrong with the two is found here, before compiling.

    Raises:
      UserError: batch, mesh, rules, patterns or durations that do not fit together.
    """
    sharding.check_batch(data.batch_size, mesh, experiment.micro_batches)
    _check_vocabularies(experiment, data)
    if check := getattr(experiment.task, "check", None):
        check(experiment.model, data.transforms)
    to_steps = functools.partial(duration.steps, batch_size=data.batch_size, examples_per_epoch=data.examples_per_epoch)
    total = to_steps(experiment.duration)
    at_least(1, "experiment", duration=total)
    learning_rate = experiment.optimizer.schedule.build(experiment.optimizer.learning_rate, total, to_steps)

    def init_params() -> Any:
        example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), data.element_spec().streams)
        return experiment.model.init(jax.random.key(experiment.seed), example)["params"]

    rows = batch_sharding(mesh)
    shapes = jax.eval_shape(init_params)
    specs = sharding.param_specs(shapes, mesh, experiment.rules)
    recipe = _teachers_frozen(experiment)
    optimizer, trainable = recipe.build(shapes, learning_rate), recipe.trainable(shapes)
    apply = apply_of(experiment.model)
    loss = jax.eval_shape(functools.partial(run, experiment.task, apply), shapes, data.element_spec())
    _check_classes(experiment.task, data, loss)
    balance = functools.partial(_balance, experiment, shapes, loss)
    ema = trainable if experiment.optimizer.ema else None
    make_state = functools.partial(state.create, optimizer=optimizer, trainable=ema, balance=balance)
    abstract = jax.eval_shape(make_state, shapes)
    shardings = sharding.state_shardings(abstract, specs, shapes, mesh)
    abstract = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
    return Trainer(
        mesh=mesh,
        total_steps=total,
        to_steps=to_steps,
        abstract=abstract,
        init=jax.jit(lambda: make_state(init_params()), out_shardings=shardings),
        from_params=jax.jit(make_state, out_shardings=shardings),
        step=jax.jit(
            functools.partial(
                train_step,
                apply=apply,
                task=experiment.task,
                modulators=experiment.balance,
                optimizer=optimizer,
                learning_rate=learning_rate,
                trainable=trainable,
                seed=experiment.seed,
                micro_batches=experiment.micro_batches,
                ema_decay=experiment.optimizer.ema,
            ),
            in_shardings=(shardings, rows),
            out_shardings=(shardings, NamedSharding(mesh, P())),
            donate_argnums=0,
        ),
        embed=jax.jit(lambda params, batch: answers(apply(params, batch.streams, None)), out_shardings=rows),
    )


def _teachers_frozen(experiment: Experiment) -> Optimizer:
    """Returns the optimizer's recipe, with the parameters of the model's teachers among what is frozen."""
    teachers = teacher_patterns(getattr(experiment.model, "teachers", {}))
    return dataclasses.replace(experiment.optimizer, frozen=(*experiment.optimizer.frozen, *teachers))


def _balance(experiment: Experiment, params: Any, loss: TaskLoss) -> dict[str, Any]:
    """Returns the first state of each modulator."""
    return {name: modulator.init(params, loss) for name, modulator in experiment.balance.items()}


def _check_classes(task: Task, data: Pipeline, loss: TaskLoss) -> None:
    """Raises UserError where a head has another number of classes than its target."""
    for name, part in loss.parts.items():
        _check_classes(task.tasks[name], data, part)
    classes = getattr(data.targets.get(getattr(task, "target", None)), "classes", None)
    if classes is None or loss.evidence is None or loss.parts:
        return
    if len(classes) != (size := loss.evidence.prediction.shape[-1]):
        raise UserError(
            f"the target {task.target!r} has {len(classes)} classes, but the head {task.head!r} predicts {size}."
        )


def _check_vocabularies(experiment: Experiment, data: Pipeline) -> None:
    """Raises UserError where a tokenizer gives ids that its encoder's embedding table has no row for."""
    for name, transform in data.transforms.items():
        ids = getattr(getattr(transform, "tokenizer", None), "vocab_size", 0)
        rows = getattr(getattr(experiment.model, "encoders", {}).get(name), "vocab_size", ids)
        if ids > rows:
            raise UserError(
                f"model.encoders.{name}.vocab_size is {rows}, but the tokenizer of {name!r} has {ids} tokens; "
                f"set it to {ids} or more."
            )


def apply_of(model: Any) -> Apply:
    """Returns apply(params, streams, rng) -> Outputs of a flax module."""
    return lambda params, streams, rng: model.apply({"params": params}, streams, rng)

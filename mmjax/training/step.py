"""The train step: step(state, batch) -> (state, metrics), pure, with nothing hidden."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.balance.modulator import Modulator, Reweighed, Step
from mmjax.core.types import Array, Batch
from mmjax.layers.dropout import example_keys
from mmjax.tasks.task import Apply, Task, TaskLoss, run
from mmjax.training import state as states
from mmjax.training.grad_cache import value_and_grad
from mmjax.training.state import TrainState


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    apply: Apply,
    task: Task,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable[[Array], Array],
    trainable: Any,
    seed: int,
    modulators: Mapping[str, Modulator] = MappingProxyType({}),
    micro_batches: int = 1,
    ema_decay: float | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update, or none where the loss or the gradient is not finite.

    Args:
      state, batch: of this step.
      apply: apply(params, streams, rng) -> Outputs.
      task: what is optimised.
      optimizer: optax transformation over params.
      learning_rate: updates made -> learning rate of the next, to be logged.
      trainable: tree of bool like params; no gradient is computed for False leaves.
      seed: the noise of step s is drawn from fold_in(seed, s), example by example.
      modulators: name -> what watches or changes loss and gradients, in this order.
      micro_batches: see grad_cache.
      ema_decay: of state.ema.

    Returns:
      (new state, metrics: name -> [] float32).
    """
    rng = example_keys(jax.random.fold_in(jax.random.key(seed), state.step), batch.size)  # [B]

    def apply_trainable(params, *args):
        return apply(jax.tree.map(lambda t, p: p if t else jax.lax.stop_gradient(p), trainable, params), *args)

    reweighed = Reweighed(task, modulators, state.balance)
    (loss, task_loss), grads = value_and_grad(reweighed, apply_trainable, state.params, batch, rng, micro_batches)
    grads, balance, watched = _modulate(
        grads, state, batch, task_loss, apply=apply, task=task, modulators=modulators, seed=seed
    )
    grad_norm = optax.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = states.update_ema(state.ema, params, ema_decay)

    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    old = (state.params, state.opt_state, state.ema, state.balance)
    params, opt_state, ema, balance = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), (params, opt_state, ema, balance), old
    )
    skipped = state.skipped + jnp.where(good, 0, 1)
    in_row = jnp.where(good, 0, state.skipped_in_row + 1)
    metrics = {"loss": loss, "grad_norm": grad_norm, "learning_rate": learning_rate(state.step - state.skipped)}
    metrics |= {"skipped": skipped, "skipped_in_row": in_row, **task_loss.metrics, **watched}
    return TrainState(state.step + 1, params, opt_state, ema, skipped, in_row, balance), metrics


def _modulate(
    grads: Any,
    state: TrainState,
    batch: Batch,
    loss: TaskLoss,
    *,
    apply: Apply,
    task: Task,
    modulators: Mapping[str, Modulator],
    seed: int,
) -> tuple[Any, dict[str, Any], dict[str, Array]]:
    """Returns (gradients, state and metrics of the modulators), each modulator acting on what the one before left."""

    states, metrics = {}, {}
    for number, (name, modulator) in enumerate(modulators.items()):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), batch.size + number)
        seen = Step(loss, state.params, batch, state.step, key, functools.partial(run, task, apply))
        grads, states[name], found = modulator.modulate(grads, state.balance[name], seen)
        metrics |= found
    return grads, states, metrics

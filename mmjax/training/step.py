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
from mmjax.tasks.task import Apply, Task
from mmjax.training import state as states
from mmjax.training.grad_cache import run_in_parts, value_and_grad
from mmjax.training.state import TrainState

MODULATORS = 2**31 - 1
"""Folded into the key of a step for the noise of modulators; those of examples are folded with their row."""


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
    with jax.named_scope("optimizer"):
        grad_norm = optax.global_norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    run = functools.partial(run_in_parts, task, apply, micro_batches=micro_batches)
    seen = functools.partial(Step, task_loss, grads, state.params, batch, state.step, run=run)
    with jax.named_scope("balance"):
        updates, balance, watched = _modulate(updates, state, seen, modulators, seed)
    with jax.named_scope("optimizer"):
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
    updates: Any, state: TrainState, seen: Callable[..., Step], modulators: Mapping[str, Modulator], seed: int
) -> tuple[Any, dict[str, Any], dict[str, Array]]:
    """Returns (updates, state and metrics of the modulators), each modulator acting on what the one before left."""
    states, metrics = {}, {}
    noise = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), MODULATORS)
    for number, (name, modulator) in enumerate(modulators.items()):
        step = seen(key=jax.random.fold_in(noise, number))
        updates, states[name], found = modulator.modulate(updates, state.balance[name], step)
        metrics |= found
    return updates, states, metrics

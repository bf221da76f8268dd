"""The train step: step(state, batch) -> (state, metrics), pure, with nothing hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.core.types import Array, Batch
from mmjax.layers.dropout import example_keys
from mmjax.tasks.task import Apply, Task
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
      micro_batches: see grad_cache.
      ema_decay: of state.ema.

    Returns:
      (new state, metrics: name -> [] float32).
    """
    rng = example_keys(jax.random.fold_in(jax.random.key(seed), state.step), batch.size)  # [B]

    def apply_trainable(params, *args):
        return apply(jax.tree.map(lambda t, p: p if t else jax.lax.stop_gradient(p), trainable, params), *args)

    (loss, task_loss), grads = value_and_grad(task, apply_trainable, state.params, batch, rng, micro_batches)
    grad_norm = optax.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = states.update_ema(state.ema, params, ema_decay)

    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    params, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), (params, opt_state, ema), (state.params, state.opt_state, state.ema)
    )
    skipped = state.skipped + jnp.where(good, 0, 1)
    in_row = jnp.where(good, 0, state.skipped_in_row + 1)
    metrics = {"loss": loss, "grad_norm": grad_norm, "learning_rate": learning_rate(state.step - state.skipped)}
    metrics |= {"skipped": skipped, "skipped_in_row": in_row, **task_loss.metrics}
    return TrainState(state.step + 1, params, opt_state, ema, skipped, in_row), metrics

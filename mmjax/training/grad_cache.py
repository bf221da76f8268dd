"""Gradient caching: the exact gradient of a loss over a batch too large to keep the activations of.

Embed micro-batch by micro-batch keeping embeddings only, take the loss over all of them, then embed each again and
pull the cached gradient of its embeddings back to the parameters. Noise has a key an example, so it is the same in
both passes and in the undivided batch.

References:
  Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import einops
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError
from mmjax.core.mesh import BATCH_AXES, constrain
from mmjax.core.types import Array, Batch
from mmjax.tasks.task import Apply, Task, TaskLoss, loss_of, run


def value_and_grad(
    task: Task, apply: Apply, params: Any, batch: Batch, rng: Array, micro_batches: int = 1
) -> tuple[tuple[jax.Array, TaskLoss], Any]:
    """Returns ((loss [], TaskLoss), gradient like params) of task over batch.

    Args:
      task, apply, params, batch: see tasks.task.
      rng: [B] keys, one an example.
      micro_batches: number of parts that the batch is embedded in; 1 keeps all activations.

    Raises:
      UserError: B is not a multiple of micro_batches.
    """
    if micro_batches == 1:

        def whole(params):
            loss = run(task, apply, params, batch, rng)
            return loss.mean(), loss

        return jax.value_and_grad(whole, has_aux=True)(params)
    parts = _parts((batch, rng), micro_batches)

    def embed(params, part):
        return task.embed(apply, params, *part)

    by_example, shared = _embedded(functools.partial(embed, params), parts)

    def of_embeddings(by_example, shared):
        loss = loss_of(task, by_example, shared, batch)
        return loss.mean(), loss

    value, cached = jax.value_and_grad(of_embeddings, argnums=(0, 1), has_aux=True)(by_example, shared)
    return value, _second_pass(embed, params, parts, cached, micro_batches)


def run_in_parts(task: Task, apply: Apply, params: Any, batch: Batch, micro_batches: int = 1) -> TaskLoss:
    """Returns the loss of task over batch without noise, embedded in parts as `value_and_grad` does."""
    if micro_batches == 1:
        return run(task, apply, params, batch)
    embed = functools.partial(task.embed, apply, params, rng=None)
    return loss_of(task, *_embedded(lambda part: embed(batch=part), _parts(batch, micro_batches)), batch)


def _parts(tree: Any, micro_batches: int) -> Any:
    size = jax.tree.leaves(tree)[0].shape[0]
    if size % micro_batches:
        raise UserError(f"micro_batches: {micro_batches} does not divide the batch of {size} examples.")
    return jax.tree.map(lambda leaf: split(leaf, micro_batches), tree)


def _embedded(embed: Callable[[Any], Any], parts: Any) -> tuple[Any, Any]:
    """Returns (by_example, shared) of all parts together."""
    by_example, shared = jax.lax.map(embed, parts)
    return jax.tree.map(join, by_example), jax.tree.map(lambda leaf: leaf[0], shared)


def _second_pass(embed, params: Any, parts: Any, cached: Any, micro_batches: int) -> Any:
    by_example, shared = cached
    by_example = jax.tree.map(lambda leaf: split(leaf, micro_batches), by_example)

    def accumulate(total, xs):
        number, part, part_cached = xs
        # What does not depend on the batch gets its gradient once, with the first part.
        once = jax.tree.map(lambda leaf: jnp.where(number == 0, leaf, jnp.zeros_like(leaf)), shared)
        _, pull_back = jax.vjp(lambda params: embed(params, part), params)
        (grads,) = pull_back((part_cached, once))
        return jax.tree.map(jnp.add, total, grads), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(accumulate, zeros, (jnp.arange(micro_batches), parts, by_example))[0]


def split(leaf: Array, parts: int) -> Array:
    """Returns [parts, B / parts, ...] of leaf [B, ...]: every part takes rows of every device, so none move."""
    leaf = einops.rearrange(leaf, "(b m) ... -> m b ...", m=parts)
    return constrain(leaf, None, BATCH_AXES)


def join(leaf: Array) -> Array:
    """Undoes `split`."""
    return constrain(einops.rearrange(leaf, "m b ... -> (b m) ..."), BATCH_AXES)

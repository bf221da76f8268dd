"""Hard negatives: for each row one of its block that is no match, the likelier the more similar."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError
from mmjax.losses.contrastive import matmul

LOWEST = -1e30
"""Stands for the logit of a row that must not be drawn."""


def hard_negatives(
    a: jax.Array,
    b: jax.Array,
    *,
    logit_scale: jax.Array | float,
    group: jax.Array,
    mask: jax.Array,
    rng: jax.Array,
    block_size: int,
) -> tuple[jax.Array, jax.Array]:
    """Draws for each row i of a the row j of b in proportion to exp(logit_scale <a_i, b_j>), within i's block.

    Rows i S to i S + S - 1 are a block, on however many devices they lie, so that the draw is the same on any number
    and never more than [N / S, S, S] similarities exist.

    Args:
      a, b: [N, D] unit vectors of two modalities; no gradient flows into them.
      logit_scale: [] temperature of the contrastive loss, already exponentiated.
      group: [N] int; a row of the same group is a match, and never drawn.
      mask: [N] bool; a row that is False is never drawn, and has no negative.
      rng: [N] keys, one a row.
      block_size: S, which divides N.

    Returns:
      (place [N] int32, j's place within the block; found [N] bool, False where the block holds no negative for i, whose
      place is then its own).

    Raises:
      UserError: block_size does not divide N, or is below 2.

    References:
      Li et al., Align before Fuse (ALBEF), 2021, section 3.2.
    """
    if block_size < 2 or a.shape[0] % block_size:
        raise UserError(
            f"hard negatives: blocks of {block_size} rows do not fill the {a.shape[0]} that are embedded at a time; "
            "choose a block_size of at least 2 that divides the batch over its micro-batches."
        )
    a, b = (jax.lax.stop_gradient(jnp.where(mask[:, None], x, 0.0)) for x in (a, b))
    a, b, group, mask, rng = in_blocks((a, b, group, mask, rng), block_size)  # [N / S, S, ...]
    stranger = mask[:, :, None] & mask[:, None, :] & (group[:, :, None] != group[:, None, :])  # [N / S, S, S]
    logits = jax.lax.stop_gradient(logit_scale) * matmul(a, b.swapaxes(1, 2))
    draw = jax.vmap(jax.vmap(jax.random.categorical))(rng, jnp.where(stranger, logits, LOWEST))  # [N / S, S]
    found = stranger.any(axis=2)
    place = jnp.where(found, draw, jnp.arange(block_size))
    return place.reshape(-1).astype(jnp.int32), found.reshape(-1)


def take_places(tree: Any, places: jax.Array, block_size: int) -> Any:
    """Returns tree with row i of every leaf [N, ...] replaced by the row at places[i] of its block."""
    taken = jax.vmap(lambda x, place: jax.tree.map(lambda leaf: leaf[place], x))(
        in_blocks(tree, block_size), places.reshape(-1, block_size)
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), taken)


def in_blocks(tree: Any, block_size: int) -> Any:
    """Leaves [N, ...] -> [N / S, S, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, block_size, *leaf.shape[1:]), tree)

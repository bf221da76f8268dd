"""Means over what is there."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def mean_where(
    values: jax.Array, mask: jax.Array, axis: int | Sequence[int] | None = None, keepdims: bool = False
) -> jax.Array:
    """Returns the float32 mean of values where mask is True; 0 where nothing counts, whatever the others hold.

    Args:
      values: [...], any dtype.
      mask: bool, of as many dimensions as values, each of the same size or, where no mean is taken over it, of 1.
      axis: the dimensions that the mean is taken over; None for all.
      keepdims: whether they stay, as 1.
    """
    total = jnp.sum(values, axis, jnp.float32, keepdims=keepdims, where=mask)
    return total / jnp.maximum(jnp.sum(mask, axis, jnp.float32, keepdims=keepdims), 1.0)

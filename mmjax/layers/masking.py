"""Masks: which keys a query may look at, and means over what is there."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def attention_mask(mask: jax.Array | None) -> jax.Array | None:
    """Returns [B, 1, 1, M] for a key mask [B, M]: every query of every head sees the same keys."""
    return None if mask is None else mask[:, None, None, :]


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the float32 mean [B, D] of x [B, N, D] over the True entries of mask [B, N]; 0 where there are none."""
    weights = mask.astype(jnp.float32)[..., None]  # [B, N, 1]
    return jnp.sum(x * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)  # [B, D]


def last_position(mask: jax.Array) -> jax.Array:
    """Returns [B] int32, the position of the last True entry of mask [B, N]; 0 where there is none."""
    positions = jnp.arange(mask.shape[1]) * mask  # [B, N]
    return jnp.max(positions, axis=1)

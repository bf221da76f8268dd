"""Masks: which keys a query may look at, and which position is the last that is there."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def attention_mask(mask: jax.Array | None) -> jax.Array | None:
    """Returns [B, 1, 1, M] for a key mask [B, M]: every query of every head sees the same keys."""
    return None if mask is None else mask[:, None, None, :]


def last_position(mask: jax.Array) -> jax.Array:
    """Returns [B] int32, the position of the last True entry of mask [B, N]; 0 where there is none."""
    positions = jnp.arange(mask.shape[1]) * mask  # [B, N]
    return jnp.max(positions, axis=1)

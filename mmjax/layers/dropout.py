"""Noise by example: dropout whose draw depends on the example's own key, not on how the batch is cut.

Every module takes `rng`, a [B] array of PRNG keys (one an example) or None for no noise. The same example thus gets
the same noise undivided, in micro-batches and on any number of devices, and each device draws only its own rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError


def example_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """Returns [B] keys, one a row of the batch."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch_size))


def fold(rng: jax.Array | None, data: int | jax.Array) -> jax.Array | None:
    """Folds data (a layer's number) into each of the [B] keys; None stays None."""
    return None if rng is None else jax.vmap(lambda key: jax.random.fold_in(key, data))(rng)


def dropout(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zeroes elements of x [B, ...] with probability rate and scales the rest by 1 / (1 - rate).

    References:
      Srivastava et al., Dropout, JMLR 2014.
    """
    return _drop(x, rate, rng, x.shape[1:])


def drop_path(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Zeroes whole examples of a residual branch x [B, ...] with probability rate (stochastic depth).

    References:
      Huang et al., Deep Networks with Stochastic Depth, 2016.
    """
    return _drop(x, rate, rng, (1,) * (x.ndim - 1))


def _drop(x: jax.Array, rate: float, rng: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    if not 0 <= rate < 1:
        raise UserError(f"dropout: the rate {rate} must be at least 0 and below 1.")
    if rng is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(rng)  # [B, ...]
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def keep_tokens(num_tokens: int, kept: int, rng: jax.Array) -> jax.Array:
    """Returns [B, kept] int32: the token numbers that each example keeps, drawn uniformly, in order.

    References:
      Li et al., Scaling Language-Image Pre-training via Masking (FLIP), 2023.
    """
    noise = jax.vmap(lambda key: jax.random.uniform(key, (num_tokens,)))(rng)  # [B, N]
    return jnp.sort(jnp.argsort(noise, axis=1)[:, :kept], axis=1)  # [B, kept]

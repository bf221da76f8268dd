"""Points without an order: farthest-point sampling, nearest neighbours, gathering and masked maxima.

What picks points is not differentiated: indices have no gradient, the coordinates that are gathered with them do.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, at_least


def farthest_points(points: jax.Array, mask: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Picks points that lie far from one another, each the farthest from those before it.

    The first is the point farthest from the mean of all, so that no order of the points takes part (unless two lie
    equally far, where the earlier one wins). Points at one place are picked once.

    Args:
      points: [B, P, 3] float coordinates.
      mask: [B, P] bool; False points are never picked.
      count: G, how many to pick.

    Returns:
      Indices [B, G] int32, and [B, G] bool: False where the example has no further point (the index is 0 then).

    Raises:
      UserError: points are not [B, P, 3], mask is not [B, P], or count is below 1.

    References:
      Qi et al., PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space, 2017, section 3.2.
    """
    _check("farthest_points", points, mask)
    at_least(1, "farthest_points", count=count)
    points = jax.lax.stop_gradient(jnp.where(mask[..., None], points, 0).astype(jnp.float32))
    start = _distances(mean_where(points, mask[..., None], axis=1), points)  # [B, P]
    first = jnp.argmax(jnp.where(mask, start, -1.0), axis=1)  # [B]

    def pick(number: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        nearest, chosen, found, index, is_new = state
        chosen, found = chosen.at[:, number].set(index), found.at[:, number].set(is_new)
        centre = jnp.take_along_axis(points, index[:, None, None], axis=1)[:, 0]  # [B, 3]
        nearest = jnp.minimum(nearest, _distances(centre, points))  # [B, P]
        index = jnp.argmax(nearest, axis=1).astype(jnp.int32)
        return nearest, chosen, found, index, jnp.max(nearest, axis=1) > 0

    batch = points.shape[0]
    nearest = jnp.where(mask, jnp.inf, -1.0)  # [B, P]
    empty = jnp.zeros((batch, count), jnp.int32), jnp.zeros((batch, count), bool)
    state = (nearest, *empty, first.astype(jnp.int32), mask.any(axis=1))
    _, chosen, found, _, _ = jax.lax.fori_loop(0, count, pick, state)
    return jnp.where(found, chosen, 0), found


def nearest_points(
    centres: jax.Array, points: jax.Array, mask: jax.Array, count: int, radius: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Finds the nearest points of each centre; memory is [B, G, P].

    Args:
      centres: [B, G, 3] float coordinates.
      points: [B, P, 3] float coordinates.
      mask: [B, P] bool; False points are nobody's neighbours.
      count: K, how many to find; no more than P are given.
      radius: points farther away than this are left out.

    Returns:
      Indices [B, G, K] int32, the nearest first, and [B, G, K] bool: False where there is no further neighbour.

    Raises:
      UserError: points are not [B, P, 3], mask is not [B, P], or count is below 1.
    """
    _check("nearest_points", points, mask)
    at_least(1, "nearest_points", count=count)
    centres, points = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (centres, points))
    steps = [centres[:, :, None, axis] - points[:, None, :, axis] for axis in range(3)]  # 3 x [B, G, P]
    squares = sum(jnp.square(step) for step in steps)  # [B, G, P]
    near = mask[:, None, :] if radius is None else mask[:, None, :] & (squares <= radius**2)
    found, indices = jax.lax.top_k(jnp.where(near, -squares, -jnp.inf), min(count, points.shape[1]))  # [B, G, K]
    return indices, found > -jnp.inf


def gather_points(values: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns [B, ..., F]: the rows of values [B, P, F] that indices [B, ...] name, each from its own example."""
    flat = indices.reshape(indices.shape[0], -1, 1)  # [B, N, 1]
    return jnp.take_along_axis(values, flat, axis=1).reshape(*indices.shape, values.shape[-1])


def masked_max(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the maximum [..., D] of x [..., N, D] over the True entries of mask [..., N]; 0 where there are none."""
    most = jnp.max(jnp.where(mask[..., None], x, jnp.finfo(x.dtype).min), axis=-2)  # [..., D]
    return jnp.where(mask.any(axis=-1)[..., None], most, 0)


def _distances(centre: jax.Array, points: jax.Array) -> jax.Array:
    """Returns the squared distances [B, P] of points [B, P, 3] from one centre [B, 3] each."""
    return jnp.sum(jnp.square(points - centre[:, None]), axis=-1)


def _check(where: str, points: jax.Array, mask: jax.Array) -> None:
    if points.ndim != 3 or points.shape[-1] != 3 or mask.shape != points.shape[:2]:
        raise UserError(
            f"{where}: expected points [batch, points, 3] and a mask [batch, points], got {tuple(points.shape)} "
            f"and {tuple(mask.shape)}."
        )

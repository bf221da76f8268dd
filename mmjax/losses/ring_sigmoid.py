"""The sigmoid loss over all pairs by tiles, and its gradient."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmjax.losses.contrastive import matmul
from mmjax.losses.sweep import Plan, sweep, tree_add


class Rows(NamedTuple):
    """What a tile needs of each row.

    Attributes:
      x: [c, D] embeddings.
      group: [c] int.
      mask: [c] bool.
      weight: [c] the cotangent of the row's loss; None where the value is wanted, and on the away side.
    """

    x: jax.Array
    group: jax.Array
    mask: jax.Array
    weight: jax.Array | None = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(plan: Plan, a, b, logit_scale, logit_bias, group, mask) -> jax.Array:
    """Returns [N] what `sigmoid_contrastive` does, for inputs that `prepare` has seen."""
    return _forward(plan, a, b, logit_scale, logit_bias, group, mask)[0]


def _forward(plan: Plan, a, b, logit_scale, logit_bias, group, mask):
    def local(rows, scalars):
        a, b, group, mask = rows
        tile = functools.partial(_value_tile, scalars)
        loss, () = sweep(plan, tile, tree_add, Rows(a, group, mask), Rows(b, group, mask), (0.0, ()))  # [n]
        return loss, ()

    loss, () = plan.call(local, (a, b, group, mask), (logit_scale, logit_bias))
    return loss, (a, b, logit_scale, logit_bias, group, mask)


def _backward(plan: Plan, residuals, cotangent):
    a, b, logit_scale, logit_bias, group, mask = residuals

    def local(rows, scalars):
        a, b, group, mask, cotangent = rows
        home, away = Rows(a, group, mask, cotangent), Rows(b, group, mask)
        zero = jnp.zeros(a.shape[1:], jnp.float32)
        tile = functools.partial(_gradient_tile, scalars)
        (da, dbias), db = sweep(plan, tile, tree_add, home, away, ((zero, 0.0), zero))  # [n, D], [n], [n, D]
        dscale = plan.total(jnp.sum(a.astype(jnp.float32) * da))
        da, db = (scalars[0] * da).astype(a.dtype), (scalars[0] * db).astype(b.dtype)
        return (da, db), (dscale, plan.total(jnp.sum(dbias)))

    rows = (a, b, group, mask, cotangent)
    (da, db), (dscale, dbias) = plan.call(local, rows, (logit_scale, logit_bias))
    return da, db, dscale, dbias, None, None


_loss.defvjp(_forward, _backward)
sigmoid_loss = jax.jit(_loss, static_argnums=0)


def _pairs(scalars, home: Rows, away: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns sign * logit, which pairs count, and the sign; each [c, c]."""
    scale, bias = scalars
    valid = home.mask[:, None] & away.mask[None, :]
    sign = jnp.where(home.group[:, None] == away.group[None, :], 1.0, -1.0)
    return sign * (scale * matmul(home.x, away.x.T) + bias), valid, sign


def _value_tile(scalars, home: Rows, away: Rows) -> tuple[jax.Array, tuple[()]]:
    signed, valid, _ = _pairs(scalars, home, away)  # [c, c]
    return jnp.sum(jnp.where(valid, jax.nn.softplus(-signed), 0.0), axis=1), ()


def _gradient_tile(scalars, home: Rows, away: Rows) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Returns what the tile adds to the gradients of a and of the bias by row, and of b; a's and b's before scale."""
    signed, valid, sign = _pairs(scalars, home, away)  # [c, c]
    dlogits = jnp.where(valid, -home.weight[:, None] * sign * jax.nn.sigmoid(-signed), 0.0)
    da = matmul(dlogits, away.x)  # [c, D]
    return (da, jnp.sum(dlogits, axis=1)), matmul(dlogits.T, home.x)

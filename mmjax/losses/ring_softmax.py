"""The softmax loss over all pairs by tiles: online log-sum-exp of rows and columns in one sweep, and its gradient."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmjax.losses.contrastive import matmul
from mmjax.losses.sweep import Plan, sweep, tree_add

LOWEST = -1e30
"""Stands for the logit of a pair that does not count; finite, so that LOWEST - LOWEST is 0."""


class Rows(NamedTuple):
    """What a tile needs of each row to value it: x [c, D], group [c], mask [c]."""

    x: jax.Array
    group: jax.Array
    mask: jax.Array


class Weighted(NamedTuple):
    """What a tile needs of each row for the gradient.

    Attributes:
      rows: as in the forward sweep.
      lse: [c] log-sum-exp of the row's logits.
      weight: [c] the cotangent of half a loss.
      share: [c] weight over the number of positives.
    """

    rows: Rows
    lse: jax.Array
    weight: jax.Array
    share: jax.Array


class Stats(NamedTuple):
    """Running statistics of the logits that a row has met.

    Attributes:
      top: [c] the largest.
      total: [c] sum of exp(logit - top).
      positive: [c] sum over the positives.
      count: [c] number of positives.
    """

    top: jax.Array
    total: jax.Array
    positive: jax.Array
    count: jax.Array


EMPTY = Stats(LOWEST, 0.0, 0.0, 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(plan: Plan, a, b, logit_scale, group, mask) -> jax.Array:
    """Returns [N] what `softmax_contrastive` does, for inputs that `prepare` has seen."""
    return _forward(plan, a, b, logit_scale, group, mask)[0]


def _forward(plan: Plan, a, b, logit_scale, group, mask):
    def local(rows, scale):
        a, b, group, mask = rows
        tile = functools.partial(_value_tile, scale)
        row, column = sweep(plan, tile, _merge, Rows(a, group, mask), Rows(b, group, mask), (EMPTY, EMPTY))
        lse = [jnp.where(mask, s.top + jnp.log(jnp.maximum(s.total, 1e-37)), 0.0) for s in (row, column)]  # 2 x [n]
        count = jnp.maximum(row.count, 1.0)
        loss = jnp.where(mask, (sum(lse) - (row.positive + column.positive) / count) / 2, 0.0)
        return (loss, *lse, count), ()

    (loss, *saved), () = plan.call(local, (a, b, group, mask), logit_scale)
    return loss, (a, b, logit_scale, group, mask, *saved)


def _backward(plan: Plan, residuals, cotangent):
    a, b, logit_scale, group, mask, row_lse, column_lse, count = residuals

    def local(rows, scale):
        a, b, group, mask, row_lse, column_lse, count, cotangent = rows
        weight = jnp.where(mask, cotangent / 2, 0.0)
        home = Weighted(Rows(a, group, mask), row_lse, weight, weight / count)
        away = Weighted(Rows(b, group, mask), column_lse, weight, weight / count)
        zero = jnp.zeros(a.shape[1:], jnp.float32)
        da, db = sweep(plan, functools.partial(_gradient_tile, scale), tree_add, home, away, (zero, zero))  # [n, D]
        dscale = plan.total(jnp.sum(a.astype(jnp.float32) * da))
        return ((scale * da).astype(a.dtype), (scale * db).astype(b.dtype)), dscale

    rows = (a, b, group, mask, row_lse, column_lse, count, cotangent)
    (da, db), dscale = plan.call(local, rows, logit_scale)
    return da, db, dscale, None, None


_loss.defvjp(_forward, _backward)
softmax_loss = jax.jit(_loss, static_argnums=0)


def _pairs(scale, home: Rows, away: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns logits, which pairs count, and which are positive; each [c, c]."""
    valid = home.mask[:, None] & away.mask[None, :]
    positive = valid & (home.group[:, None] == away.group[None, :])
    return scale * matmul(home.x, away.x.T), valid, positive


def _value_tile(scale, home: Rows, away: Rows) -> tuple[Stats, Stats]:
    logits, valid, positive = _pairs(scale, home, away)  # [c, c]
    logits = jnp.where(valid, logits, LOWEST)

    def along(axis: int) -> Stats:
        top = jnp.max(logits, axis)  # [c]
        total = jnp.sum(jnp.where(valid, jnp.exp(logits - jnp.expand_dims(top, axis)), 0.0), axis)
        return Stats(top, total, jnp.sum(jnp.where(positive, logits, 0.0), axis), jnp.sum(positive, axis, jnp.float32))

    return along(1), along(0)


def _merge(a: Stats, b: Stats) -> Stats:
    top = jnp.maximum(a.top, b.top)
    total = a.total * jnp.exp(a.top - top) + b.total * jnp.exp(b.top - top)
    return Stats(top, total, a.positive + b.positive, a.count + b.count)


def _gradient_tile(scale, home: Weighted, away: Weighted) -> tuple[jax.Array, jax.Array]:
    """Returns what the tile adds to the gradients of a and b, [c, D] each, before logit_scale multiplies them."""
    logits, valid, positive = _pairs(scale, home.rows, away.rows)  # [c, c]
    rows = home.weight[:, None] * jnp.exp(logits - home.lse[:, None])
    columns = away.weight[None, :] * jnp.exp(logits - away.lse[None, :])
    dlogits = jnp.where(valid, rows + columns, 0.0)
    dlogits -= jnp.where(positive, home.share[:, None] + away.share[None, :], 0.0)  # [c, c]
    return matmul(dlogits, away.rows.x), matmul(dlogits.T, home.rows.x)

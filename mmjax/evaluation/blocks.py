"""Walks the scores of queries against a gallery block by block, inside one jitted function with static shapes.

Nothing larger than the embedding tables and one [chunk, chunk] block of scores ever exists.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmjax.core.types import Array

TIE = 2e-6
"""Scores closer than this, relative to the product of the norms, are tied (float32 dot products round to ~1e-7)."""


def _blocks(x: Array, chunk: int) -> Array:
    """[N, ...] -> [ceil(N / chunk), chunk, ...], the last block padded with 0."""
    return _padded(x, -(-len(x) // chunk) * chunk).reshape(-1, chunk, *x.shape[1:])


def _padded(x: Array, rows: int) -> Array:
    return jnp.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def _within(at: Array, span: Array) -> Array:
    """[G] row numbers, [C, 2] -> [C, G], whether a row is in the span from start to before end."""
    return (at >= span[:, :1]) & (at < span[:, 1:])


def _scores(queries: Array, items: Array) -> Array:
    """[C, E], [G, E] -> [C, G] in full float32, also where the default matmul is less."""
    return jnp.einsum("ce,ge->cg", queries, items, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("chunk", "mesh"))
def count_rivals(queries, right, left_out, gallery, chunk: int, mesh: Mesh | None = None) -> tuple[Array, Array]:
    """Counts the wrong items above and level with the best right item of each query.

    Args:
      queries: [N, E] float32.
      right: [N, 2] int32; gallery[start:end] are the right items of a query, at least one.
      left_out: [N, 2] int32; gallery[start:end] are neither right nor wrong, none or more.
      gallery: [M, E] float32.
      chunk: rows of either side in one block.
      mesh: spreads the queries over all its devices; None runs where the arrays are.

    Returns:
      higher [N] and tied [N], int32.
    """
    local = functools.partial(_count_local, chunk=chunk)
    if mesh is None:
        return local(queries, right, left_out, gallery)
    return _spread(local, (queries, right, left_out), gallery, mesh, size=len(queries))


def _spread(local, of_queries: tuple[Array, ...], gallery: Array, mesh: Mesh, size: int) -> tuple[Array, Array]:
    """Returns the first size rows of both results of local(*of_queries, gallery), its queries cut over all of mesh."""
    padded = [_padded(x, size + -size % mesh.size) for x in of_queries]
    rows = P(mesh.axis_names)
    specs = (*(rows for _ in padded), P())
    run = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(rows, rows), check_vma=False)
    first, second = run(*padded, gallery)
    return first[:size], second[:size]


def _count_local(queries, right, left_out, gallery, chunk: int) -> tuple[Array, Array]:
    """`count_rivals` on one device."""
    size, (items, _) = len(queries), gallery.shape
    norms = jnp.linalg.norm(gallery, axis=1)
    longest = jnp.max(jnp.where(jnp.isfinite(norms), norms, 0.0))
    blocks = _blocks(gallery, min(chunk, items))  # [K, G, E]
    first = jnp.arange(len(blocks)) * blocks.shape[1]  # [K]

    def one_chunk(part):
        q, own, out = part  # [C, E], [C, 2], [C, 2]
        best = _best_right(q, own, gallery)  # [C]
        slack = TIE * longest * jnp.linalg.norm(q, axis=1)  # [C]

        def one_block(counts, block):
            rows, offset = block
            score = _scores(q, rows)  # [C, G]
            at = offset + jnp.arange(len(rows))
            wrong = (at < items) & ~_within(at, own) & ~_within(at, out)  # [C, G]
            above = ~(score <= (best + slack)[:, None])  # a NaN is above
            level = ~above & ~(score < (best - slack)[:, None])
            return (counts[0] + jnp.sum(wrong & above, axis=1), counts[1] + jnp.sum(wrong & level, axis=1)), None

        zeros = jnp.zeros(len(q), jnp.int32)
        return jax.lax.scan(one_block, (zeros, zeros), (blocks, first))[0]

    step = min(chunk, size)
    higher, tied = jax.lax.map(one_chunk, tuple(_blocks(x, step) for x in (queries, right, left_out)))  # [K, C]
    return higher.reshape(-1)[:size], tied.reshape(-1)[:size]


def _best_right(q: Array, own: Array, gallery: Array) -> Array:
    """The highest score [C] among gallery[own] of each query, one gathered item a turn."""
    low, high = own[:, 0], own[:, 1]

    def turn(i, best):
        item = gallery[jnp.minimum(low + i, high - 1)]  # [C, E]
        score = jnp.einsum("ce,ce->c", q, item, precision=jax.lax.Precision.HIGHEST)
        return jnp.maximum(best, score)

    return jax.lax.fori_loop(0, jnp.max(high - low), turn, jnp.full(len(q), -jnp.inf))


@functools.partial(jax.jit, static_argnames=("k", "chunk", "mesh"))
def best_items(queries, gallery, k: int, chunk: int, mesh: Mesh | None = None) -> tuple[Array, Array]:
    """Returns the k highest scores [N, k] float32 and their gallery rows [N, k] int32, of equals the earlier first.

    A mesh spreads the queries over all its devices; None runs where the arrays are.
    """
    local = functools.partial(_best_local, k=k, chunk=chunk)
    if mesh is None:
        return local(queries, gallery)
    return _spread(local, (queries,), gallery, mesh, size=len(queries))


def _best_local(queries, gallery, k: int, chunk: int) -> tuple[Array, Array]:
    """`best_items` on one device."""
    size, items = len(queries), len(gallery)
    blocks = _blocks(gallery, min(chunk, items))  # [K, G, E]
    first = jnp.arange(len(blocks)) * blocks.shape[1]  # [K]

    def one_chunk(q):
        def one_block(best, block):
            rows, offset = block
            at = jnp.broadcast_to(offset + jnp.arange(len(rows)), (len(q), len(rows)))
            score = jnp.where(at < items, _scores(q, rows), -jnp.inf)  # [C, G]
            score = jnp.where(jnp.isnan(score), jnp.finfo(score.dtype).min, score)
            scores = jnp.concatenate([best[0], score], axis=1)  # [C, k + G]
            top, where = jax.lax.top_k(scores, k)
            return (top, jnp.take_along_axis(jnp.concatenate([best[1], at], axis=1), where, axis=1)), None

        start = (jnp.full((len(q), k), -jnp.inf), jnp.zeros((len(q), k), jnp.int32))
        return jax.lax.scan(one_block, start, (blocks, first))[0]

    top, rows = jax.lax.map(one_chunk, _blocks(queries, min(chunk, size)))  # [K, C, k]
    return top.reshape(-1, k)[:size], rows.reshape(-1, k)[:size]

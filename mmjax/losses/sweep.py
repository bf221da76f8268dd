"""All pairs of two sharded sets of rows, one tile at a time: a ring over devices, chunks within each.

The home rows stay on their device. The away rows travel round the ring, so that after its K steps every device has met
every block of them. Blocks that are smaller than a chunk are joined first, over the neighbours of the innermost mesh
axes, so that the ring has fewer steps and no tile is too small to keep a matrix unit busy. Within a step the pairs of
the home block and the visiting block are taken a chunk of each at a time. Both sides gather a sum over the tiles (of
any kind that `merge` can join): the home sum stays, the away sum follows its rows and is home again at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError

Tree = Any

DEFAULT_CHUNK = 1024
"""Rows and columns of a tile where none is given: 4 MiB of float32 logits."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How N rows are cut up. Hashable, so that it can be a static argument.

    Attributes:
      ring: mesh axes round which blocks of away rows travel; steps: the product of their sizes.
      joined: mesh axes, inside those, over which blocks are joined first; parts: the product of their sizes.
      chunk: home rows of one chunk; the last chunk of a device may hold fewer.
      away_chunk: away rows of one chunk.
    """

    ring: tuple[str, ...]
    steps: int
    joined: tuple[str, ...]
    parts: int
    chunk: int
    away_chunk: int

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes that the rows are sharded over; empty on one device."""
        return self.ring + self.joined

    def rotate(self, tree: Tree) -> Tree:
        """Sends every leaf to the next device of the ring."""
        ring = [(i, (i + 1) % self.steps) for i in range(self.steps)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.ring, ring), tree)

    def join(self, tree: Tree) -> Tree:
        """Leaves [n, ...] -> [parts n, ...]: the blocks of the neighbours, one after the other."""
        if not self.joined:
            return tree
        return jax.tree.map(lambda x: jax.lax.all_gather(x, self.joined, tiled=True), tree)

    def part(self, merge: Callable[[Tree, Tree], Tree], tree: Tree) -> Tree:
        """Leaves [parts n, ...] -> [n, ...]: what all neighbours have found for a device's own block, merged."""
        if not self.joined:
            return tree

        def exchange(x: jax.Array) -> jax.Array:
            blocks = x.reshape(self.parts, -1, *x.shape[1:])  # [parts, n, ...]
            return jax.lax.all_to_all(blocks, self.joined, split_axis=0, concat_axis=0, tiled=True)

        found = jax.tree.map(exchange, tree)
        return functools.reduce(merge, [jax.tree.map(lambda x, i=i: x[i], found) for i in range(self.parts)])

    def total(self, x: jax.Array) -> jax.Array:
        """Returns the sum of x over the devices."""
        return jax.lax.psum(x, self.axes) if self.axes else x

    def call(self, fn: Callable[[Tree, Tree], tuple[Tree, Tree]], rows: Tree, scalars: Tree) -> tuple[Tree, Tree]:
        """Calls fn(rows, scalars) -> (rows, scalars) on each device's share of the rows [N, ...]."""
        if not self.axes:
            return fn(rows, scalars)
        return jax.shard_map(fn, in_specs=(P(self.axes), P()), out_specs=(P(self.axes), P()))(rows, scalars)


def make_plan(size: int, chunk_size: int | None, axes: Sequence[str]) -> Plan:
    """Returns the plan for `size` rows on the mesh of `jax.set_mesh` (one device where there is none).

    Chunks are made equal: 1500 rows in chunks of at most 1024 are two of 750.

    Raises:
      UserError: chunk_size is not positive, or the mesh axes do not divide size.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in axes if name in mesh.axis_names and mesh.shape[name] > 1)
    shards = math.prod(mesh.shape[name] for name in axes)
    if chunk_size is not None and chunk_size < 1:
        raise UserError(f"contrastive loss: chunk_size must be at least 1, but is {chunk_size}.")
    if size % shards:
        raise UserError(
            f"contrastive loss: {size} rows cannot be split over the {shards} devices of the mesh axes "
            f"{', '.join(axes)}; pad the batch to a multiple of {shards} and mask the rows that fill it up."
        )
    rows, most = max(size // shards, 1), chunk_size or DEFAULT_CHUNK
    ring, joined, parts = axes, (), 1
    while ring and rows * parts * mesh.shape[ring[-1]] <= most:
        parts *= mesh.shape[ring[-1]]
        ring, joined = ring[:-1], (ring[-1], *joined)
    return Plan(ring, shards // parts, joined, parts, _equal(rows, most), _equal(rows * parts, most))


def _equal(rows: int, most: int) -> int:
    """Returns the rows of a chunk where as few as possible, of at most `most` rows, share them equally."""
    return math.ceil(rows / math.ceil(rows / most))


def sweep(
    plan: Plan,
    tile: Callable[[Tree, Tree], tuple[Tree, Tree]],
    merge: Callable[[Tree, Tree], Tree],
    home: Tree,
    away: Tree,
    zeros: tuple[Tree, Tree],
) -> tuple[Tree, Tree]:
    """Merges the contributions of every tile; to be called inside `Plan.call`.

    Args:
      plan: how the rows are cut up.
      tile: (home chunk [c, ...], away chunk [d, ...]) -> what the tile adds to (home sum [c, ...], away sum [d, ...]).
      merge: (sum, contribution) -> sum; associative and commutative.
      home: leaves [n, ...], this device's rows. Rows that fill the last chunk up are 0 (False) in every leaf.
      away: leaves [n, ...], this device's own block of the rows that travel.
      zeros: (home, away) identities of merge for one row, as concrete values.

    Returns:
      (home sum, away sum), leaves [n, ...]: over all N rows of the other side.
    """
    away = plan.join(away)  # [parts n, ...]
    sizes = [jax.tree.leaves(rows)[0].shape[0] for rows in (home, away)]
    home, away = _chunked(home, plan.chunk), _chunked(away, plan.away_chunk)  # [C, c, ...] each
    home_sum, away_zero = (
        _filled(zero, jax.tree.leaves(rows)[0].shape[:2], plan.axes)
        for zero, rows in zip(zeros, (home, away), strict=True)
    )

    def visit(home_sum: Tree, away: Tree) -> tuple[Tree, Tree]:
        return _all_tiles(tile, merge, home, away, home_sum, away_zero)

    def step(_: int, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        # The away sum moves one step after its rows, so that neither transfer waits for this step's tiles.
        away, home_sum, away_sum = carry
        following, away_sum = plan.rotate((away, away_sum))
        home_sum, found = visit(home_sum, away)
        return following, home_sum, merge(away_sum, found)

    if plan.ring:
        _, home_sum, away_sum = jax.lax.fori_loop(0, plan.steps, step, (away, home_sum, away_zero))
        away_sum = plan.rotate(away_sum)
    else:
        home_sum, away_sum = visit(home_sum, away)
    home_sum, away_sum = (
        jax.tree.map(lambda x, size=size: x.reshape(-1, *x.shape[2:])[:size], rows)  # [n, ...], [parts n, ...]
        for rows, size in zip((home_sum, away_sum), sizes, strict=True)
    )
    return home_sum, plan.part(merge, away_sum)


def tree_add(a: Tree, b: Tree) -> Tree:
    """The merge of plain sums."""
    return jax.tree.map(jnp.add, a, b)


def _all_tiles(tile, merge, home: Tree, away: Tree, home_sum: Tree, away_zero: Tree) -> tuple[Tree, Tree]:
    """Merges the tiles of two blocks, leaves [C, c, ...], column by column; returns (home sum, away sum)."""

    def column(home_sum: Tree, visitor: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        away_chunk, away_sum = visitor

        def row(away_sum: Tree, resident: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
            home_chunk, home_sum = resident
            to_home, to_away = tile(home_chunk, away_chunk)
            return merge(away_sum, to_away), merge(home_sum, to_home)

        away_sum, home_sum = jax.lax.scan(row, away_sum, (home, home_sum))
        return home_sum, away_sum

    return jax.lax.scan(column, home_sum, (away, away_zero))


def _chunked(tree: Tree, chunk: int) -> Tree:
    """Leaves [n, ...] -> [C, c, ...], filled up with 0."""

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, -len(x) % chunk), *[(0, 0)] * (x.ndim - 1)])
        return x.reshape(-1, chunk, *x.shape[1:])  # [C, c, ...]

    return jax.tree.map(split, tree)


def _filled(zero: Tree, shape: tuple[int, ...], axes: tuple[str, ...]) -> Tree:
    """Repeats one row's values over shape, as values that differ between the devices of the axes."""

    def fill(x: jax.Array) -> jax.Array:
        x = jnp.broadcast_to(jnp.asarray(x, jnp.float32), (*shape, *jnp.shape(x)))
        return jax.lax.pcast(x, axes, to="varying") if axes else x

    return jax.tree.map(fill, zero)

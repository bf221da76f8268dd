"""All pairs of two sharded sets of rows, one tile at a time: a ring over devices, chunks within each.

The home rows stay on their device. The away rows travel round the ring, so that after K steps every device has met
every block of them. Within a step the pairs of the home block and the visiting block are taken `chunk x chunk` at a
time. Both sides gather a sum over the tiles (of any kind that `merge` can join): the home sum stays, the away sum
follows its rows and is home again at the end.
"""

from __future__ import annotations

import dataclasses
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
      axes: mesh axes that the rows are sharded over; empty on one device.
      shards: the product of the sizes of the axes.
      chunk: rows of one chunk; the last chunk of a device may hold fewer.
    """

    axes: tuple[str, ...]
    shards: int
    chunk: int

    def rotate(self, tree: Tree) -> Tree:
        """Sends every leaf to the next device of the ring."""
        ring = [(i, (i + 1) % self.shards) for i in range(self.shards)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axes, ring), tree)

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
    rows = max(size // shards, 1)
    chunks = math.ceil(rows / (chunk_size or DEFAULT_CHUNK))
    return Plan(axes, shards, math.ceil(rows / chunks))


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
      tile: (home chunk [c, ...], away chunk [c, ...]) -> what the tile adds to (home sum [c, ...], away sum [c, ...]).
      merge: (sum, contribution) -> sum; associative and commutative.
      home: leaves [n, ...], this device's rows. Rows that fill the last chunk up are 0 (False) in every leaf.
      away: leaves [n, ...], this device's own block of the rows that travel.
      zeros: (home, away) identities of merge for one row, as concrete values.

    Returns:
      (home sum, away sum), leaves [n, ...]: over all N rows of the other side.
    """
    size = jax.tree.leaves(home)[0].shape[0]
    home, away = _chunked(home, plan.chunk), _chunked(away, plan.chunk)  # [C, c, ...]
    chunks = jax.tree.leaves(home)[0].shape[0]
    home_sum, away_zero = (_filled(zero, (chunks, plan.chunk), plan.axes) for zero in zeros)  # [C, c, ...]

    def visit(home_sum: Tree, away: Tree) -> tuple[Tree, Tree]:
        return _all_tiles(tile, merge, home, away, home_sum, away_zero)

    def step(_: int, carry: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        # The away sum moves one step after its rows, so that neither transfer waits for this step's tiles.
        away, home_sum, away_sum = carry
        following, away_sum = plan.rotate((away, away_sum))
        home_sum, found = visit(home_sum, away)
        return following, home_sum, merge(away_sum, found)

    if plan.axes:
        _, home_sum, away_sum = jax.lax.fori_loop(0, plan.shards, step, (away, home_sum, away_zero))
        away_sum = plan.rotate(away_sum)
    else:
        home_sum, away_sum = visit(home_sum, away)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], (home_sum, away_sum))  # [n, ...]


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

"""Sharding of the state by path rules, and of host-local batches into global arrays."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.mesh import batch_sharding
from mmjax.core.trees import flatten, map_with_path
from mmjax.core.types import Batch

Rule = tuple[str, tuple[str | None, ...]]
"""(pattern of the whole parameter path, mesh axes of its last dimensions)."""

DEFAULT_RULES: tuple[Rule, ...] = (
    (r".*/(query|key|value)/kernel", ("fsdp", "tensor", None)),  # [D, H, Dh]
    (r".*/out/kernel", ("tensor", None, "fsdp")),  # [H, Dh, D]
    (r".*/up/kernel", ("fsdp", "tensor")),  # [D, hidden]
    (r".*/down/kernel", ("tensor", "fsdp")),  # [hidden, D]
    (r".*/conv/kernel", ("fsdp",)),  # [h, w, C, D]
    (r".*/logits/kernel", ("fsdp", None)),  # [D, classes]
    (r".*/(embedding|table|patches/embedding/kernel|projections_\w+/kernel)", (None, "fsdp")),  # [N, D]
)
"""Rules match layer names, so an encoder built from `layers/` is covered. Axes count from the last dimension, so a
leading layer axis of scanned blocks is never split."""

LARGE = 2**20
"""A leaf of at least this many elements must be named by a rule (`(pattern, ())` replicates it on purpose)."""


def param_specs(params: Any, mesh: Mesh, rules: Sequence[Rule] = ()) -> dict[str, P]:
    """Returns path -> PartitionSpec for every leaf of params (arrays or shapes).

    Args:
      params: arrays or shapes.
      mesh: with the axes that the rules name.
      rules: of this model; they come before DEFAULT_RULES, and the first rule that matches wins.

    Raises:
      UserError: a rule that matches nothing, a dimension that its axis does not divide, a large leaf without a rule.
    """
    leaves = flatten(params)
    for pattern, _ in rules:
        if not any(re.fullmatch(pattern, name) for name in leaves):
            raise UserError(
                f"sharding rule {pattern!r} matches no parameter.{nearest(pattern, leaves)} "
                f"The parameters are: {listed(leaves)}"
            )
    rules = (*rules, *DEFAULT_RULES)
    return {name: _spec(name, leaf.shape, mesh, rules) for name, leaf in leaves.items()}


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh, rules: Sequence[Rule]) -> P:
    axes = next((axes for pattern, axes in rules if re.fullmatch(pattern, name)), None)
    if axes is None:
        if math.prod(shape) >= LARGE:
            raise UserError(
                f"sharding: no rule matches {name} of shape {shape}, which is large; add a rule for it "
                "(with no axes, to replicate it)."
            )
        return P()
    if len(axes) > len(shape):
        raise UserError(f"sharding: the rule for {name} has axes {axes} but its shape is {shape}.")
    full = (None,) * (len(shape) - len(axes)) + tuple(axes)
    for size, axis in zip(shape, full, strict=True):
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(
                f"sharding: dimension {size} of {name} {shape} is not divisible by the mesh axis {axis!r} "
                f"of size {mesh.shape[axis]}; choose another mesh, or a rule that leaves this dimension whole."
            )
    return P(*full)


def state_shardings(state: Any, specs: dict[str, P], params: Any, mesh: Mesh) -> Any:
    """Returns a NamedSharding for each leaf of state.

    A leaf whose path ends in a parameter's path and which has its shape (the parameter itself, its moments, its
    average) is sharded as that parameter; every other leaf is replicated.
    """
    shapes = {name: leaf.shape for name, leaf in flatten(params).items()}

    def sharding(path: str, leaf: Any) -> NamedSharding:
        parts = path.split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if shapes.get(name) == leaf.shape:
                return NamedSharding(mesh, specs[name])
        return NamedSharding(mesh, P())

    return map_with_path(sharding, state)


def check_batch(batch_size: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raises UserError where batch_size cannot be cut over the batch axes of mesh and into micro-batches."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * micro_batches
    if batch_size % parts:
        raise UserError(
            f"batch size {batch_size} is not divisible by {parts} (mesh data={mesh.shape['data']} x "
            f"fsdp={mesh.shape['fsdp']} x micro_batches={micro_batches}); the nearest that is: "
            f"{max(parts, round(batch_size / parts) * parts)}."
        )


@functools.lru_cache
def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns [R] int, rising: the rows of the global batch that this process's devices hold.

    They need not be one run: `jax.make_mesh` orders the devices of a TPU slice by its wiring, not by host.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[part] for (part,) in slices]))


def global_batch(batch: Batch, batch_size: int, mesh: Mesh) -> Batch:
    """Returns batch (the rows `local_rows` of it, numpy) as global arrays of batch_size rows over the mesh."""
    sharding, rows = batch_sharding(mesh), local_rows(batch_size, mesh)

    def place(leaf: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            return leaf[slice(*np.searchsorted(rows, (start, stop)))]

        return jax.make_array_from_callback((batch_size, *leaf.shape[1:]), sharding, part)

    return jax.tree.map(place, batch)


def placed(leaf: np.ndarray | jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    """Returns leaf, which every process has, over the devices of all processes."""
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

"""A stack of equal layers of any kind: scanned over stacked parameters or unrolled, with a remat policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least
from mmjax.core.trees import map_with_path
from mmjax.layers.hooks import STACKED
from mmjax.layers.remat import rematerialised


def stack(
    layer: type[nn.Module],
    sizes: Mapping[str, Any],
    depth: int,
    *,
    scan: bool,
    remat: str,
    name: str,
    each: str | None = None,
    batch_parts: int = 1,
) -> Callable[[Any, Any, jax.Array | None], Any]:
    """Returns f(carry, constant, rng) -> carry that runs depth layers; call it inside a compact method.

    Args:
      layer: a module called as layer(carry, constant, rng, number) -> (carry, None), as layers.transformer.Block is;
        carry and constant are trees of arrays, the carry keeps its shapes and dtypes.
      sizes: the fields of the layer.
      depth: number of layers.
      scan: one compiled layer with stacked parameters [depth, ...] under `name`; else `each`_0, `each`_1, ...
      remat: see layers.remat.
      name: of the parameters.
      each: of those of one layer, where they are not stacked; None is `name`.
      batch_parts: each layer takes the examples (the first axis of every array) in so many equal parts, one after the
        other; where they do not divide the batch, in as many as do. The parts are strided, so that each holds as much
        of every device's share of the batch.

    Raises:
      UserError: an unknown remat policy, or depth below 1.
    """
    at_least(1, name, depth=depth)
    layer = rematerialised(layer, remat, prevent_cse=not scan)

    def each_part(module: nn.Module, carries: Any, constants: Any, rngs: Any, number: Any) -> tuple[Any, None]:
        def all_parts(module: nn.Module) -> list[Any]:
            return [module(*part, number)[0] for part in zip(carries, constants, rngs, strict=True)]

        once = len(carries) > 1 and not module.is_initializing()
        return (_with_kernels_in(module.dtype, all_parts) if once else all_parts)(module), None

    def unrolled(carries: Any, constants: Any, rngs: Any) -> Any:
        for number in range(depth):
            carries, _ = each_part(layer(**sizes, name=f"{each or name}_{number}"), carries, constants, rngs, number)
        return carries

    def scanned(carries: Any, constants: Any, rngs: Any) -> Any:
        layers = nn.scan(
            each_part,
            variable_axes={"params": 0} | dict.fromkeys(STACKED, 0),
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=depth,
        )
        return layers(layer(**sizes, name=name), carries, constants, rngs, jnp.arange(depth))[0]

    def run(carry: Any, constant: Any, rng: jax.Array | None) -> Any:
        parts = math.gcd(batch_parts, len(jax.tree.leaves(carry)[0]))
        return _join((scanned if scan else unrolled)(*(_split(tree, parts) for tree in (carry, constant, rng))))

    return run


def _with_kernels_in(dtype: Any, function: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    """Returns function(module) that sees kernels cast to dtype.

    So one cast serves all parts, and between devices the sum of their gradients is reduced, not each.
    """

    def cast(variables: Any) -> Any:
        return map_with_path(lambda path, x: x.astype(dtype) if path.endswith("kernel") else x, variables)

    return nn.map_variables(function, "params", trans_in_fn=cast)


def _split(tree: Any, parts: int) -> list[Any]:
    """Returns `parts` trees; the first has every parts-th example from the first on, the second from the second on."""
    if parts == 1:
        return [tree]
    strided = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]), tree)
    return [jax.tree.map(lambda x, i=part: x[:, i], strided) for part in range(parts)]


def _join(trees: list[Any]) -> Any:
    """Returns what was split."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *parts: jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:]), *trees)


def fields_of(module: nn.Module, cls: type[nn.Module]) -> dict[str, Any]:
    """Returns the fields of cls as module has them, those of the same name."""
    names = {field.name for field in dataclasses.fields(cls)} - {"name", "parent"}
    return {name: getattr(module, name) for name in names if hasattr(module, name)}

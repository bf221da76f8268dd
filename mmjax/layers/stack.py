"""A stack of equal layers of any kind: scanned over stacked parameters or unrolled, with a remat policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least
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

    Raises:
      UserError: an unknown remat policy, or depth below 1.
    """
    at_least(1, name, depth=depth)
    layer = rematerialised(layer, remat, prevent_cse=not scan)

    def unrolled(carry: Any, constant: Any, rng: jax.Array | None) -> Any:
        for number in range(depth):
            carry, _ = layer(**sizes, name=f"{each or name}_{number}")(carry, constant, rng, number)
        return carry

    def scanned(carry: Any, constant: Any, rng: jax.Array | None) -> Any:
        layers = nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=depth,
        )
        return layers(**sizes, name=name)(carry, constant, rng, jnp.arange(depth))[0]

    return scanned if scan else unrolled


def fields_of(module: nn.Module, cls: type[nn.Module]) -> dict[str, Any]:
    """Returns the fields of cls as module has them, those of the same name."""
    names = {field.name for field in dataclasses.fields(cls)} - {"name", "parent"}
    return {name: getattr(module, name) for name in names if hasattr(module, name)}

"""A stack of equal layers of any kind: scanned over stacked parameters or unrolled, with a remat policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least, one_of


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
      remat: as in layers.transformer.Transformer; 'core' is left to the layer's own field `remat_core`, which it must
        have.
      name: of the parameters.
      each: of those of one layer, where they are not stacked; None is `name`.

    Raises:
      UserError: an unknown remat policy, 'core' for a layer that has no `remat_core`, or depth below 1.
    """
    at_least(1, name, depth=depth)
    layer = _remat(layer, remat, prevent_cse=not scan)

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
    """Returns the fields of cls as module has them, those of the same name; its `remat_core` is remat='core' there."""
    names = {field.name for field in dataclasses.fields(cls)} - {"name", "parent"}
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if "remat_core" in names - set(found):
        found["remat_core"] = getattr(module, "remat", "none") == "core"
    return found


def _remat(layer: type[nn.Module], policy: str, prevent_cse: bool) -> type[nn.Module]:
    policies = [name for name in dir(jax.checkpoint_policies) if not name.startswith("_")]
    one_of(policy, ["none", "core", "full", *policies], "remat")
    if policy == "core" and "remat_core" not in {field.name for field in dataclasses.fields(layer)}:
        raise UserError(f"remat='core' is for attention, which {layer.__name__} has not; use 'none' or 'full'.")
    if policy in ("none", "core"):
        return layer
    if policy == "full":
        return nn.remat(layer, prevent_cse=prevent_cse)
    return nn.remat(layer, prevent_cse=prevent_cse, policy=getattr(jax.checkpoint_policies, policy))

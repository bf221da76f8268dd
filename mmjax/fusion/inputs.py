"""What the fusions share: projected tokens and vectors of each modality, and means over the modalities present.

The functions that take a `module` make parameters in it: call them inside its compact method. A fusion learns the names
of the modalities when it is initialised, and finds them again in its own parameters (`projections_<modality>`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, listed, nearest, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Tokens
from mmjax.layers.pooling import POOLS, Pool, class_token, summary

PREFIX = "projections_"


def known(module: nn.Module, tokens: Mapping[str, Tokens], prefix: str = PREFIX) -> tuple[str, ...]:
    """Returns the names of all modalities that module was initialised with, in alphabetical order.

    Args:
      module: a fusion with parameters named `prefix`<modality>.
      tokens: those of this call, any subset of them.
      prefix: of the parameters.

    Raises:
      UserError: no modality, one that was not there at initialisation, or tokens that are not [B, N, D].
    """
    owner = type(module).__name__
    if not tokens:
        raise UserError(f"{owner}: there is no modality to fuse; the call holds no tokens.")
    for name, stream in tokens.items():
        if stream.x.ndim != 3 or stream.mask.shape != stream.x.shape[:2]:
            raise UserError(
                f"{owner}: expected tokens of {name!r} as x [batch, tokens, width] with mask [batch, tokens], got "
                f"{tuple(stream.x.shape)} and {tuple(stream.mask.shape)}."
            )
    if module.is_initializing():
        return tuple(sorted(tokens))
    names = sorted(key.removeprefix(prefix) for key in module.variables["params"] if key.startswith(prefix))
    for name in tokens:
        if name not in names:
            raise UserError(
                f"{owner}: modality {name!r} was not there at initialisation.{nearest(name, names)} "
                f"It knows: {listed(names)}."
            )
    return tuple(names)


def project(module: nn.Module, tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Returns name -> Tokens with x [B, N, width] in module.dtype: a linear map plus the modality's embedding.

    Tokens that are padding are zero on the way in, so that what stands there cannot reach anything.
    """
    projected = {}
    for name in sorted(tokens):
        stream = tokens[name]
        x = jnp.where(stream.mask[..., None], stream.x, 0).astype(module.dtype)
        x = nn.Dense(module.width, use_bias=False, dtype=module.dtype, name=f"{PREFIX}{name}")(x)  # [B, N, width]
        embedding = module.param(f"embedding_{name}", nn.initializers.normal(0.02), (module.width,), jnp.float32)
        projected[name] = Tokens(constrain_batch(x + embedding.astype(x.dtype)), stream.mask)
    return projected


def project_vectors(module: nn.Module, tokens: Mapping[str, Tokens]) -> dict[str, jax.Array]:
    """Returns name -> float32 [B, width]: a linear map of the modality's vector (layers.pooling.summary)."""
    return {
        name: nn.Dense(module.width, dtype=module.dtype, name=f"{PREFIX}{name}")(summary(tokens[name])).astype(
            jnp.float32
        )
        for name in sorted(tokens)
    }


def class_tokens(module: nn.Module, parts: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Returns parts with a learned token before each modality's own where module.pool is 'first'; else as they are."""
    if module.pool != "first":
        return dict(parts)
    return {n: Tokens(*class_token(module, part.x, part.mask, f"class_token_{n}")) for n, part in parts.items()}


def pool_tokens(module: nn.Module, name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns float32 [B, D] by the kind `module.pool`; 0 where mask is all False."""
    one_of(module.pool, [kind for kind in POOLS if kind != "none"], f"{type(module).__name__}.pool")
    pool = Pool(module.pool, module.num_heads, module.mlp_dim, dtype=module.dtype, name=name)
    return jnp.where(mask.any(axis=1)[:, None], pool(x, mask).astype(jnp.float32), 0.0)  # [B, D]


def present_mean(vectors: Sequence[jax.Array], present: Sequence[jax.Array]) -> jax.Array:
    """Returns the float32 mean [B, ...] of M vectors [B, ...] over those that are present [B]; 0 where none is."""
    there = jnp.stack(present).reshape(len(present), -1, *(1,) * (vectors[0].ndim - 1))  # [M, B, 1, ...]
    return mean_where(jnp.stack(vectors), there, axis=0)


def present_softmax(logits: jax.Array, present: jax.Array) -> jax.Array:
    """Returns the float32 softmax of logits [B, M, ...] over what is present (same shape or broadcast); 0 elsewhere."""
    lowest = jnp.finfo(jnp.float32).min
    weights = jax.nn.softmax(jnp.where(present, logits.astype(jnp.float32), lowest), axis=1)
    return jnp.where(present, weights, 0.0)


def joint(vectors: Mapping[str, jax.Array], tokens: Mapping[str, Tokens]) -> tuple[jax.Array, jax.Array]:
    """Returns (x [B, M, D], present [B, M]) of one vector a modality, zero where it is missing."""
    present = jnp.stack([tokens[name].present for name in vectors], axis=1)  # [B, M]
    x = jnp.stack(list(vectors.values()), axis=1)  # [B, M, D]
    return jnp.where(present[..., None], x, 0), present

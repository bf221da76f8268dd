"""Early fusion: the tokens of all modalities in one row, through one transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.inputs import known, pool_tokens, project
from mmjax.layers.norm import layer_norm
from mmjax.layers.pooling import class_token
from mmjax.layers.transformer import transformer_of


class Early(nn.Module):
    """{modality: Tokens [B, N_m, D_m]} -> fused Tokens [B, N, width], pooled [B, width] float32.

    N is the sum of N_m, and one more with pool='first'. Every token sees every token. With pool='first' this is the
    multimodal encoder of FLAVA: the hidden states of each unimodal encoder go through a linear projection, a class
    token is put before all, and a transformer runs over them. Where no modality is present, all of the fused tokens
    are masked, the class token too, and the joint vector is 0. `Outputs.in_context` has the tokens by modality.

    Attributes:
      width, depth, num_heads, mlp_dim: sizes of the transformer.
      pool: 'first' (a class token), 'mean', 'last', 'attention'; see layers.pooling.
      dropout, drop_path, scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: see fusion.inputs.known; an unknown pool.

    References:
      Singh et al., FLAVA: A Foundational Language And Vision Alignment Model, 2022, section 3.1.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    pool: str = "first"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        known(self, tokens)
        parts = project(self, tokens)
        x = jnp.concatenate([part.x for part in parts.values()], axis=1)  # [B, N, D]
        mask = jnp.concatenate([part.mask for part in parts.values()], axis=1)  # [B, N]
        present = mask.any(axis=1, keepdims=True)  # [B, 1]
        if self.pool == "first":
            x, mask = class_token(self, x, mask, always=True)  # [B, 1 + N, D], [B, 1 + N]
        x = transformer_of(self)(constrain_batch(x), mask, rng)
        x, mask = layer_norm("norm", x, self.dtype), mask & present
        fused = Tokens(x, mask, pool_tokens(self, "pool", x, mask))
        return Outputs(tokens=dict(tokens), fused=fused, in_context=_by_modality(x, {n: tokens[n] for n in parts}))


def _by_modality(x: jax.Array, tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Returns modality -> its share of the fused tokens x [B, N, D], which ends with them in the order of tokens."""
    end = x.shape[1]
    found = {}
    for name in reversed(list(tokens)):
        part = tokens[name]
        start = end - part.x.shape[1]
        found[name] = Tokens(x[:, start:end], part.mask, None, part.hidden)
        end = start
    return found

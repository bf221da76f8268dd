"""Pooling: from tokens [B, N, D] to one vector [B, D] an example."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import one_of
from mmjax.core.types import Tokens
from mmjax.layers.attention import Attention
from mmjax.layers.masking import last_position
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import layer_norm

POOLS = ("first", "last", "mean", "attention", "none")


def summary(tokens: Tokens) -> jax.Array:
    """Returns a float32 vector an example [B, D]: pooled, or the mean of the tokens; 0 where there are none."""
    vector = mean_where(tokens.x, tokens.mask[..., None], axis=1) if tokens.pooled is None else tokens.pooled  # [B, D]
    return jnp.where(tokens.present[:, None], vector.astype(jnp.float32), 0.0)


def class_token(
    module: nn.Module, x: jax.Array, mask: jax.Array, name: str = "class_token", always: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Puts a learned token of `module` before x [B, N, D] -> ([B, 1 + N, D], mask [B, 1 + N]).

    It is masked where all of mask [B, N] is, unless it is `always` there. Call it inside a compact method.
    """
    token = module.param(name, nn.initializers.normal(0.02), (1, 1, x.shape[-1]), jnp.float32)
    token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, x.shape[-1]))  # [B, 1, D]
    there = jnp.ones((x.shape[0], 1), bool) if always else mask.any(axis=1, keepdims=True)  # [B, 1]
    return jnp.concatenate([token, x], axis=1), jnp.concatenate([there, mask], axis=1)


class Pool(nn.Module):
    """x [B, N, D], mask [B, N] -> [B, D], or None for kind 'none'.

    Attributes:
      kind: 'first' token (a class token), 'last' unmasked token (CLIP's text), masked 'mean', 'attention' (a learned
        probe attends to the tokens, then an MLP), 'none'.
      num_heads, mlp_dim, activation, dtype: of attention pooling.

    Raises:
      UserError: an unknown kind.

    References:
      Lee et al., Set Transformer, 2019, section 3.2; Zhai et al., Scaling Vision Transformers, 2022 (MAP head).
    """

    kind: str
    num_heads: int = 1
    mlp_dim: int = 1
    activation: str = "gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array | None:
        one_of(self.kind, POOLS, "pool")
        if self.kind == "none":
            return None
        if self.kind == "first":
            return x[:, 0]  # [B, D]
        if self.kind == "last":
            return jnp.take_along_axis(x, last_position(mask)[:, None, None], axis=1)[:, 0]  # [B, D]
        if self.kind == "mean":
            return mean_where(x, mask[..., None], axis=1).astype(x.dtype)  # [B, D]
        return self._attend(x, mask)

    def _attend(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, x.shape[-1]), jnp.float32)
        probe = jnp.broadcast_to(probe.astype(x.dtype), (x.shape[0], 1, x.shape[-1]))  # [B, 1, D]
        y = Attention(self.num_heads, dtype=self.dtype, name="attention")(probe, x, mask)  # [B, 1, D]
        hidden = layer_norm("norm", y, self.dtype)
        y = y + Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")(hidden)
        return y[:, 0]  # [B, D]

"""Divided space-time attention: in each block every token looks along its time first, then across its frame."""

from __future__ import annotations

import functools
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import Attention
from mmjax.layers.dropout import fold
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import layer_norm
from mmjax.layers.stack import fields_of, stack
from mmjax.layers.transformer import residual


class DividedBlock(nn.Module):
    """x + temporal attention(norm(x)), then x + spatial attention(norm(x)), then x + mlp(norm(x)).

    TimeSformer's published code has two things more: a class token, which takes part in the spatial attention, and a
    linear layer of its own after the temporal attention's output projection.

    Attributes:
      num_heads, mlp_dim, activation, dropout, drop_path, dtype: as in layers.transformer.Block.

    References:
      Bertasius et al., Is Space-Time Attention All You Need for Video Understanding? (TimeSformer), 2021, section 3.
    """

    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, rng: jax.Array | None = None, layer: int | jax.Array = 0
    ) -> tuple[jax.Array, None]:
        add = functools.partial(residual, self, fold(rng, layer))
        x = add(x, self._in_time(layer_norm("norm_time", x, self.dtype), mask), 0)  # [B, T, N, D]
        x = add(x, self._in_space(layer_norm("norm_space", x, self.dtype)), 1)  # [B, T, N, D]
        mlp = Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")
        return add(x, mlp(layer_norm("norm_mlp", x, self.dtype)), 2), None  # [B, T, N, D]

    def _attention(self, name: str) -> Attention:
        return Attention(self.num_heads, dtype=self.dtype, name=name)

    def _in_time(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        rows = einops.rearrange(x, "b t n d -> (b n) t d")  # [B * N, T, D]
        seen = einops.repeat(mask, "b t -> (b n) t", n=x.shape[2])  # [B * N, T]
        y = self._attention("attention_time")(rows, mask=seen)
        return einops.rearrange(y, "(b n) t d -> b t n d", n=x.shape[2])  # [B, T, N, D]

    def _in_space(self, x: jax.Array) -> jax.Array:
        frames = einops.rearrange(x, "b t n d -> (b t) n d")  # [B * T, N, D]
        y = self._attention("attention_space")(frames)
        return einops.rearrange(y, "(b t) n d -> b t n d", t=x.shape[1])  # [B, T, N, D]


class DividedTransformer(nn.Module):
    """A stack of `depth` divided blocks over x [B, T, N, D] with mask [B, T], which hides whole times.

    Attributes:
      depth, num_heads, mlp_dim, activation, dropout, drop_path, scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: an unknown remat policy, or depth below 1.
    """

    depth: int
    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        sizes = fields_of(self, DividedBlock)
        blocks = stack(DividedBlock, sizes, self.depth, scan=self.scan, remat=self.remat, name="blocks", each="block")
        return blocks(x, mask, rng)  # [B, T, N, D]

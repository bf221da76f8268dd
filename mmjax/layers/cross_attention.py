"""Pre-norm block whose queries look at the tokens of another sequence, which may be missing."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.attention import Attention
from mmjax.layers.dropout import fold
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import layer_norm
from mmjax.layers.transformer import residual


class CrossBlock(nn.Module):
    """x + attention(norm(x), norm(context)), then x + mlp(norm(x)); called as a layer of layers.stack.

    Where the mask of a context [B, M] is all False, attention adds exactly zero.

    Attributes:
      num_heads, mlp_dim, activation, dropout, drop_path, dtype: as in layers.transformer.Block.

    References:
      Lu et al., ViLBERT, 2019, section 2.1; Tsai et al., Multimodal Transformer for Unaligned Multimodal Language
      Sequences, 2019, equation 4.
    """

    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: tuple[jax.Array, jax.Array],
        rng: jax.Array | None = None,
        layer: int | jax.Array = 0,
    ) -> tuple[jax.Array, None]:
        """Maps x [B, N, D] and (context [B, M, C], its mask [B, M]) to ([B, N, D], None); rng is [B] keys or None."""
        add = functools.partial(residual, self, fold(rng, layer))
        context, mask = context
        attention = Attention(self.num_heads, dtype=self.dtype, name="attention")
        mlp = Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")
        context = layer_norm("norm_context", context, self.dtype)
        branch = attention(layer_norm("norm_attention", x, self.dtype), context, mask)  # [B, N, D]
        x = add(x, jnp.where(mask.any(axis=1)[:, None, None], branch, 0), 0)  # [B, N, D]
        x = add(x, mlp(layer_norm("norm_mlp", x, self.dtype)), 1)  # [B, N, D]
        return x, None

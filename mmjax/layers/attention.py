"""Multi-head attention through jax.nn.dot_product_attention: self or cross, masked, causal, rotary."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least
from mmjax.core.mesh import BATCH_AXES, constrain
from mmjax.layers.hooks import INTERMEDIATES, PERTURBATIONS
from mmjax.layers.masking import attention_mask
from mmjax.layers.posemb import rotary
from mmjax.layers.remat import keep


class Attention(nn.Module):
    """Queries x [B, N, D] over keys and values of context [B, M, C] (default: x itself) -> [B, N, D].

    Attributes:
      num_heads: H; D must be a multiple of it.
      causal: position n sees positions <= n only.
      use_rotary: rotate queries and keys by their positions.
      dtype: compute dtype of the matmuls; logits and softmax are float32.

    The weights [B, H, N, M] are stored as 'attention' when the collection 'intermediates' is mutable. Where the
    collection 'perturbations' has an 'attention' of that shape, it is added to them; see layers.hooks.
    """

    num_heads: int
    causal: bool = False
    use_rotary: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        width = x.shape[-1]
        at_least(1, "attention", num_heads=self.num_heads)
        if width % self.num_heads:
            raise UserError(f"attention: width {width} is not a multiple of num_heads {self.num_heads}.")
        context = x if context is None else context

        def project(name: str, values: jax.Array) -> jax.Array:
            heads = (self.num_heads, width // self.num_heads)
            y = nn.DenseGeneral(heads, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)(
                values
            )
            return keep(constrain(y, BATCH_AXES, None, "tensor", None))  # [B, N, H, Dh]

        query, key, value = project("query", x), project("key", context), project("value", context)
        if self.use_rotary:
            query = rotary(query, jnp.arange(query.shape[1]))
            key = rotary(key, jnp.arange(key.shape[1]))
        if self.is_mutable_collection(INTERMEDIATES):
            self.sow(INTERMEDIATES, "attention", attention_weights(query, key, mask, self.causal))
        if self.has_variable(PERTURBATIONS, "attention"):
            weights = attention_weights(query, key, mask, self.causal) + self.get_variable(PERTURBATIONS, "attention")
            y = jnp.einsum("bhnm,bmhd->bnhd", weights.astype(value.dtype), value)  # [B, N, H, Dh]
        else:
            y = keep(_core(query, key, value, mask, self.causal))  # [B, N, H, Dh]
        return nn.DenseGeneral(
            width, axis=(-2, -1), dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="out"
        )(y)  # [B, N, D]


def _core(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    with jax.named_scope("attention_core"):
        return jax.nn.dot_product_attention(query, key, value, mask=attention_mask(mask), is_causal=causal)


def attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    """Returns the float32 softmax weights [B, H, N, M] of query [B, N, H, Dh] over key [B, M, H, Dh]."""
    logits = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32) / query.shape[-1] ** 0.5
    allowed = jnp.ones(logits.shape[-2:], bool)
    allowed = jnp.tril(allowed) if causal else allowed
    allowed = allowed if mask is None else allowed & attention_mask(mask)
    return jax.nn.softmax(jnp.where(allowed, logits, jnp.finfo(jnp.float32).min), axis=-1)

"""LayerNorm whose backward pass needs no second reduction."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.remat import keep

NORM_EPSILON = 1e-6


class LayerNorm(nn.Module):
    """x [..., D] -> [..., D] of mean 0 and variance 1, times scale, plus bias; statistics and parameters are float32.

    It is flax.linen.LayerNorm, parameters and all, but that remat='core' keeps its statistics (see layers.remat): they
    are two numbers a token, and to reduce over the features once more costs as much as a matrix product of D columns.

    Attributes:
      dtype: of the result.

    References:
      Ba et al., Layer Normalization, 2016.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        mean = keep(x.mean(axis=-1, keepdims=True))
        variance = keep(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean))
        variance = jnp.maximum(0.0, variance)  # rounding may have left it below
        return ((x - mean) * (jax.lax.rsqrt(variance + NORM_EPSILON) * scale) + bias).astype(self.dtype)


def layer_norm(name: str, x: jax.Array, dtype: Any) -> jax.Array:
    """Returns x normalised by a LayerNorm of that name, in dtype; call it inside a compact method."""
    return LayerNorm(dtype, name=name)(x)

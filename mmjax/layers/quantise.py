"""Vector quantisation: each token becomes the nearest of K learned unit vectors, with a straight-through gradient."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError


class Codebook(nn.Module):
    """Tokens z [B, N, d] -> (codes [B, N] int32, their unit vectors [B, N, d], all cosines [B, N, K], both float32).

    Both sides are brought to unit length, so that the nearest vector is that of the highest cosine and no code is out
    of reach for its length alone: that keeps most of a large book in use.

    Attributes:
      size: K.

    Raises:
      UserError: z that is not [B, N, d], or a size below 2.

    References:
      Yu et al., Vector-quantized Image Modeling with Improved VQGAN (ViT-VQGAN), 2022, section 3.2.
    """

    size: int

    @nn.compact
    def __call__(self, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        if z.ndim != 3 or self.size < 2:
            raise UserError(f"Codebook: expected tokens [B, N, d] and two codes or more, got {z.shape}, {self.size}.")
        init = nn.initializers.normal(1.0)  # of any length: directions are uniform
        book = unit_length(self.param("codebook", init, (self.size, z.shape[-1]), jnp.float32))  # [K, d]
        cosines = jnp.einsum("bnd,kd->bnk", unit_length(z), book, precision=jax.lax.Precision.HIGHEST)  # [B, N, K]
        codes = jnp.argmax(cosines, axis=-1).astype(jnp.int32)  # [B, N]
        return codes, book[codes], cosines


def unit_length(x: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Returns x [..., d] as float32 over its length; a vector far shorter than epsilon stays near 0."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon**2)


def straight_through(z: jax.Array, quantised: jax.Array) -> jax.Array:
    """Returns quantised, whose gradient goes to z unchanged.

    References:
      Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013; van den Oord et al., Neural
      Discrete Representation Learning, 2017, section 3.2.
    """
    return z + jax.lax.stop_gradient(quantised - z)

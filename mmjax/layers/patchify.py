"""Patchify: non-overlapping squares of an image become tokens."""

from __future__ import annotations

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError


def patches_of(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into patches [B, N, P * P * C], row by row.

    Raises:
      UserError: sides that patch_size does not divide.
    """
    size = einops.parse_shape(images, "batch height width channel")
    if size["height"] % patch_size or size["width"] % patch_size:
        raise UserError(
            f"images of {size['height']}x{size['width']} pixels cannot be cut into patches of "
            f"{patch_size}: both sides must be multiples of patch_size."
        )
    return einops.rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=patch_size, q=patch_size)


class PatchEmbedding(nn.Module):
    """[B, H, W, C] pixels -> [B, N, width] tokens, row by row, by one matmul a patch (a strided convolution).

    Attributes:
      patch_size: side of a patch in pixels; H and W must be multiples of it.
      width: D of the tokens.
      use_bias: CLIP has none, SigLIP has one.
      dtype: compute dtype.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, equation 1.
    """

    patch_size: int
    width: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        patches = patches_of(images, self.patch_size)  # [B, N, P * P * C]
        return nn.Dense(self.width, use_bias=self.use_bias, dtype=self.dtype, name="embedding")(patches)  # [B, N, D]

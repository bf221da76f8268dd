"""Patchify: non-overlapping squares of an image become tokens."""

from __future__ import annotations

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError


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
        size = einops.parse_shape(images, "batch height width channel")
        if size["height"] % self.patch_size or size["width"] % self.patch_size:
            raise UserError(
                f"images of {size['height']}x{size['width']} pixels cannot be cut into patches of "
                f"{self.patch_size}: both sides must be multiples of patch_size."
            )
        patches = einops.rearrange(
            images, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch_size, q=self.patch_size
        )  # [B, N, P * P * C]
        return nn.Dense(self.width, use_bias=self.use_bias, dtype=self.dtype, name="embedding")(patches)  # [B, N, D]

"""Tubelets: non-overlapping boxes of a video, some frames deep, become tokens."""

from __future__ import annotations

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least


class TubeletEmbedding(nn.Module):
    """[B, T, H, W, C] frames -> [B, T / t, N, width] tokens, row by row, by one matmul a tubelet.

    Attributes:
      tubelet_size: t, frames of a tubelet; T must be a multiple of it. 1 embeds every frame as an image.
      patch_size: side of a tubelet in pixels; H and W must be multiples of it.
      width: D of the tokens.
      dtype: compute dtype.

    Raises:
      UserError: sides that the sizes do not divide.

    References:
      Arnab et al., ViViT: A Video Vision Transformer, 2021, section 3.2.
    """

    tubelet_size: int
    patch_size: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        at_least(1, "tubelet", tubelet_size=self.tubelet_size, patch_size=self.patch_size)
        size = einops.parse_shape(frames, "batch time height width channel")
        for axis, part in (("time", self.tubelet_size), ("height", self.patch_size), ("width", self.patch_size)):
            if size[axis] % part:
                raise UserError(
                    f"videos of {size['time']} frames of {size['height']}x{size['width']} pixels cannot be cut into "
                    f"tubelets of {self.tubelet_size} frames of {self.patch_size}x{self.patch_size} pixels: "
                    f"the {axis} {size[axis]} is not a multiple of {part}."
                )
        tubelets = einops.rearrange(
            frames,
            "b (s t) (h p) (w q) c -> b s (h w) (t p q c)",
            t=self.tubelet_size,
            p=self.patch_size,
            q=self.patch_size,
        )  # [B, T / t, N, t * P * P * C]
        return nn.Dense(self.width, dtype=self.dtype, name="embedding")(tubelets)  # [B, T / t, N, D]


def tubelet_mask(mask: jax.Array, tubelet_size: int) -> jax.Array:
    """Returns [B, T / t] bool for a mask of frames [B, T]: which tubelets have a frame that is there."""
    return mask.reshape(mask.shape[0], -1, tubelet_size).any(axis=2)

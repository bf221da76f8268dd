"""Patches: from the tokens of a fusion back to the pixels of an image."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError
from mmjax.core.types import Outputs
from mmjax.layers.norm import layer_norm
from mmjax.layers.posemb import LearnedPositions
from mmjax.layers.transformer import transformer_of


class PatchDecoder(nn.Module):
    """Outputs.fused [B, N, D] -> [B, N, P * P * 3] float32 pixels in about [0, 1], as layers.patchify cuts them.

    Attributes:
      patch_size: P.
      depth, num_heads, mlp_dim: of the transformer over the tokens.
      scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: a fusion that gives no tokens.
    """

    patch_size: int
    depth: int
    num_heads: int
    mlp_dim: int
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> jax.Array:
        if outputs.fused is None:
            raise UserError("PatchDecoder: the fusion gives no tokens; use one that does, such as fusion.quantised.")
        x = LearnedPositions(name="positions")(outputs.fused.x.astype(self.dtype))  # [B, N, D]
        x = transformer_of(self)(x, outputs.fused.mask, rng)
        x = layer_norm("norm", x, self.dtype)
        x = nn.Dense(self.patch_size**2 * 3, dtype=self.dtype, name="pixels")(x)  # [B, N, P * P * 3]
        return x.astype(jnp.float32) + 0.5

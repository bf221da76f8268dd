"""Low-rank tensor fusion: a linear map of the outer product of all modalities, without building the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least
from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.inputs import PREFIX, known
from mmjax.layers.pooling import summary


class LowRankTensor(nn.Module):
    """{modality: Tokens} -> fused Tokens [B, 1, width], pooled [B, width] = sum_r prod_m (W_m,r [v_m; 1]).

    With the 1 that is appended to each vector v_m, the product holds the interactions of every subset of modalities. A
    missing modality is the zero vector: only its factor of the 1 remains, which starts at 1, the neutral element, and
    is learned.

    Attributes:
      width: D of the joint vector.
      rank: number of terms r of the decomposition.
      dtype: compute dtype of the projections; the product is float32.

    Raises:
      UserError: see fusion.inputs.known; a rank below 1.

    References:
      Liu et al., Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, 2018, section 3.2; Zadeh et al.,
      Tensor Fusion Network for Multimodal Sentiment Analysis, 2017, equation 2 (the appended 1).
    """

    width: int
    rank: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        at_least(1, "LowRankTensor", rank=self.rank)
        names = known(self, tokens)
        factors = [self._factor(name, tokens.get(name)) for name in names]  # M x [B or 1, R, D]
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor  # [B, R, D]
        pooled = product.sum(axis=1)  # [B, D]
        mask = jnp.stack([tokens[name].present for name in sorted(tokens)]).any(axis=0)[:, None]  # [B, 1]
        return Outputs(tokens=dict(tokens), fused=Tokens(pooled[:, None].astype(self.dtype), mask, pooled))

    def _factor(self, name: str, stream: Tokens | None) -> jax.Array:
        shape = (self.rank, self.width)
        one = self.param(f"one_{name}", nn.initializers.ones, shape, jnp.float32)[None]  # [1, R, D]
        if stream is None:
            return one
        dense = nn.Dense(self.rank * self.width, use_bias=False, dtype=self.dtype, name=f"{PREFIX}{name}")
        return dense(summary(stream)).astype(jnp.float32).reshape(-1, *shape) + one  # [B, R, D]

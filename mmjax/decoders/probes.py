"""Probes: a linear head on each modality alone, that learns beside the model and never changes it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.types import Outputs
from mmjax.layers.pooling import summary


class Probes(nn.Module):
    """Outputs -> modality -> [B, size] float32, from each modality's own vector behind a stopped gradient.

    What a probe of one modality reaches says how much its encoder has learned so far; the monitor logs it, and
    modulators act on it.

    Attributes:
      size: K, logits of classes or values.
    """

    size: int

    @nn.compact
    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> dict[str, jax.Array]:
        def probe(name: str) -> jax.Array:
            vector = jax.lax.stop_gradient(summary(outputs.tokens[name]))  # [B, D]
            vector = nn.LayerNorm(dtype=jnp.float32, use_scale=False, use_bias=False, name=f"norm_{name}")(vector)
            return nn.Dense(self.size, dtype=jnp.float32, name=name)(vector)  # [B, K]

        return {name: probe(name) for name in sorted(outputs.tokens)}

"""A small PointNet for the points of a group, and the embedding of where the group is."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.norm import layer_norm
from mmjax.layers.points import masked_max


class GroupEncoder(nn.Module):
    """Points of a group [B, G, K, F] with mask [B, G, K] -> one vector [B, G, width], whatever their order.

    LayerNorm stands where the paper has BatchNorm: statistics over the batch would mix examples, count padding and
    missing modalities, differ between training and use, and change with the number of devices.

    Attributes:
      hidden: widths of the three hidden layers; the second is also that of the group's first maximum.
      width: D.
      activation, dtype: as in layers.mlp.

    References:
      Qi et al., PointNet, 2017, section 4.2; Yu et al., Point-BERT, 2022, section 3.1 (point embeddings).
    """

    hidden: tuple[int, int, int]
    width: int
    activation: str = "gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        one_of(self.activation, ACTIVATIONS, "activation")
        first, second, third = self.hidden

        def dense(size: int, name: str, x: jax.Array) -> jax.Array:
            return nn.Dense(size, dtype=self.dtype, name=name)(x)

        def active(name: str, x: jax.Array) -> jax.Array:
            return ACTIVATIONS[self.activation](layer_norm(name, x, self.dtype))

        x = dense(second, "features", active("norm_points", dense(first, "embedding", x)))  # [B, G, K, second]
        group = jnp.broadcast_to(masked_max(x, mask)[..., None, :], x.shape)
        x = jnp.concatenate([group, x], axis=-1)  # [B, G, K, 2 * second]
        x = dense(self.width, "down", active("norm_group", dense(third, "up", x)))  # [B, G, K, D]
        return masked_max(x, mask)  # [B, G, D]


class CentrePositions(nn.Module):
    """Coordinates of centres [B, G, 3] -> position embeddings [B, G, width] through a small MLP.

    Its first layer is float32 whatever the dtype: coordinates in metres have more digits than bfloat16 holds.

    Attributes:
      width: D.
      activation, dtype: as in layers.mlp.
      hidden: width between the two layers.
    """

    width: int
    activation: str = "gelu"
    dtype: Any = jnp.float32
    hidden: int = 128

    @nn.compact
    def __call__(self, centres: jax.Array) -> jax.Array:
        x = nn.Dense(self.hidden, dtype=jnp.float32, name="embedding")(centres).astype(self.dtype)  # [B, G, hidden]
        return nn.Dense(self.width, dtype=self.dtype, name="down")(ACTIVATIONS[self.activation](x))  # [B, G, D]

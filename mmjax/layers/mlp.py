"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.mesh import BATCH_AXES, constrain
from mmjax.layers.remat import keep

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
}
"""gelu: exact (open_clip); gelu_tanh: SigLIP; quick_gelu: OpenAI's CLIP."""


class Mlp(nn.Module):
    """x [B, N, D] -> [B, N, D] through hidden units of an activation.

    Attributes:
      hidden: width between the two layers.
      activation: a key of ACTIVATIONS.
      dtype: compute dtype.

    Raises:
      UserError: an unknown activation.
    """

    hidden: int
    activation: str = "gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = {"kernel_init": nn.initializers.xavier_uniform(), "bias_init": nn.initializers.normal(1e-6)}
        one_of(self.activation, ACTIVATIONS, "activation")
        y = keep(nn.Dense(self.hidden, dtype=self.dtype, name="up", **init)(x), wide=True)  # [B, N, hidden]
        y = constrain(ACTIVATIONS[self.activation](y), BATCH_AXES, *(None,) * (y.ndim - 2), "tensor")
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="down", **init)(y)  # [B, N, D]

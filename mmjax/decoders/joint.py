"""The joint vector as a prediction, so that evaluators (a probe) can read it."""

from __future__ import annotations

import flax.linen as nn
import jax

from mmjax.core.errors import UserError
from mmjax.core.types import Outputs


class Joint(nn.Module):
    """Outputs -> the pooled vector [B, D] float32 of the fusion; it has no parameters.

    Raises:
      UserError: a fusion that makes no joint vector.
    """

    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> jax.Array:
        if outputs.fused is None or outputs.fused.pooled is None:
            raise UserError("Joint: the fusion gives no joint vector; use one that does, such as fusion.early.Early.")
        return outputs.fused.pooled

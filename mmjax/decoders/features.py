"""Vectors that the model has anyway as predictions, so that evaluators (a probe) can read them."""

from __future__ import annotations

import flax.linen as nn
import jax

from mmjax.core.errors import one_of
from mmjax.core.types import Outputs
from mmjax.layers.pooling import summary


class Features(nn.Module):
    """Outputs -> a vector [B, D] float32 an example, without parameters: of an encoder, or of the fusion.

    An encoder's is what it pools, or the mean of its tokens, before any projection; a call without the modality has no
    answer: {}.

    Attributes:
      modality: whose encoder; None: the joint vector of the fusion.

    Raises:
      UserError: no tokens of the modality at initialisation, or a fusion that makes no joint vector.
    """

    modality: str | None = None

    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> jax.Array | dict[str, jax.Array]:
        if self.modality is None:
            return outputs.joint("Features without a modality")
        if self.modality not in outputs.tokens and not self.is_initializing():
            return {}
        one_of(self.modality, outputs.tokens, "Features.modality")
        return summary(outputs.tokens[self.modality])

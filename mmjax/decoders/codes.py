"""The discrete codes of a modality as a prediction, so that evaluators can read them."""

from __future__ import annotations

import flax.linen as nn
import jax

from mmjax.core.errors import one_of
from mmjax.core.types import Outputs


class Codes(nn.Module):
    """Outputs -> the codes [B, N] int32 of a modality; it has no parameters.

    Attributes:
      modality: whose codes.

    Raises:
      UserError: the fusion makes no codes of the modality.
    """

    modality: str = "image"

    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> jax.Array:
        one_of(self.modality, outputs.codes, "Codes.modality")
        return outputs.codes[self.modality].index

"""Aligned and joint at once: embeddings of each modality in one shared space, and a transformer over all tokens."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax

from mmjax.core.types import Outputs, Tokens
from mmjax.layers.dropout import fold


class Aligned(nn.Module):
    """{modality: Tokens} -> the embeddings and scalars of one fusion with all else of another.

    Attributes:
      coordinated: gives `Outputs.embeddings` and `scalars`, such as fusion.coordinated.Coordinated.
      joint: gives `Outputs.fused`, such as fusion.early.Early.

    References:
      Singh et al., FLAVA, 2022, section 3.1.
    """

    coordinated: nn.Module
    joint: nn.Module

    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        apart = self.coordinated(tokens, fold(rng, 0))
        joint = self.joint(tokens, fold(rng, 1))
        return joint.replace(
            embeddings=joint.embeddings | apart.embeddings,
            scalars=joint.scalars | apart.scalars,
            penalties=joint.penalties | apart.penalties,
        )

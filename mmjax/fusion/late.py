"""Late fusion: a vector and an answer for each modality; only the answers are combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.types import VOTE_RULES, Outputs, Tokens, Votes
from mmjax.fusion.inputs import joint, known, present_softmax, project_vectors

WEIGHTINGS = ("mean", "learned")


class Late(nn.Module):
    """{modality: Tokens} -> votes: a vector [B, width] and a weight [B] a modality, which heads answer one by one.

    `fused` holds the same vectors as Tokens [B, M, width] in the order of the names, their weighted mean as pooled.

    Attributes:
      width: D of the vectors.
      rule: 'mixture' (mean of the answers' probabilities) or 'product' (of experts).
      weighting: 'mean' (all that are present alike) or 'learned' (softmax over one logit a modality that is present).
      dtype: compute dtype of the projections; vectors and weights are float32.

    Raises:
      UserError: see fusion.inputs.known; an unknown rule or weighting.

    References:
      Baltrusaitis et al., Multimodal Machine Learning: A Survey and Taxonomy, 2019, section 6.1; Hinton, Training
      Products of Experts by Minimizing Contrastive Divergence, 2002, equation 1.
    """

    width: int
    rule: str = "mixture"
    weighting: str = "mean"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        one_of(self.rule, VOTE_RULES, "Late.rule")
        one_of(self.weighting, WEIGHTINGS, "Late.weighting")
        known(self, tokens)
        vectors = {
            name: nn.LayerNorm(dtype=jnp.float32, name=f"norm_{name}")(vector)
            for name, vector in project_vectors(self, tokens).items()
        }
        x, present = joint(vectors, tokens)  # [B, M, D], [B, M]
        weights = present_softmax(self._logits(list(vectors)), present)  # [B, M]
        pooled = jnp.einsum("bm,bmd->bd", weights, x)  # [B, D]
        by_name = {name: weights[:, place] for place, name in enumerate(vectors)}
        votes = Votes({name: x[:, place] for place, name in enumerate(vectors)}, by_name, self.rule)
        fused = Tokens(x.astype(self.dtype), present, pooled)
        return Outputs(tokens=dict(tokens), fused=fused, votes=votes, weights=by_name)

    def _logits(self, names: list[str]) -> jax.Array:
        if self.weighting == "mean":
            return jnp.zeros((1, len(names)))
        return jnp.stack([self.param(f"logit_{name}", nn.initializers.zeros, (), jnp.float32) for name in names])[None]

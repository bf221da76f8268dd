"""Shared and specific features (ShaSpec): what modalities have in common stands in for one that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, listed
from mmjax.core.types import Tokens
from mmjax.fusion.inputs import joint, known, present_mean, project_vectors
from mmjax.layers.mlp import Mlp


class SharedSpecific(nn.Module):
    """{modality: Tokens} -> {modality: Tokens with one token [B, 1, width]} for all modalities, and two penalties.

    The vector v of a modality goes through an encoder s that all share and one r of its own; its feature is
    s + W [s; r]. The feature of a modality that is missing is the mean of s over those present. As in the paper, a
    modality leaves as one feature (there a vector or a map), not as its row of tokens: here the one token and `pooled`.
    A modality of the initialisation that is not in the call is completed too. An example with nothing at all stays
    all False.

    Attributes:
      width: D of the features.
      mlp_dim: hidden units of the encoders.
      alignment: coefficient of 'alignment', the mean absolute difference of s between the pairs that are present.
      modality: coefficient of 'modality', the cross-entropy of telling from r which modality it is.
      dtype: compute dtype of the encoders; features and penalties are float32.

    Penalties are [B] float32, 0 for an example without anything to compare or classify.

    Raises:
      UserError: see fusion.inputs.known; hidden tokens, which one feature a modality cannot be asked for.

    References:
      Wang et al., Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling, 2023, section 3;
      the form of the alignment and both coefficients are those of the authors' code.
    """

    width: int
    mlp_dim: int
    alignment: float = 0.1
    modality: float = 0.02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None
    ) -> tuple[dict[str, Tokens], dict[str, jax.Array]]:
        names = known(self, tokens)
        if hidden := [name for name, stream in tokens.items() if stream.hidden is not None]:
            raise UserError(
                f"SharedSpecific makes one token of each modality, so nothing can predict the hidden ones of "
                f"{listed(hidden)}; model.missing can be LearnedTokens or Hallucination with a masked task."
            )
        given = sorted(tokens)
        vectors, present = joint(project_vectors(self, tokens), tokens)  # [B, M, D], [B, M]
        shared = Mlp(self.mlp_dim, dtype=self.dtype, name="shared")(vectors).astype(jnp.float32)  # [B, M, D]
        specific = [
            Mlp(self.mlp_dim, dtype=self.dtype, name=f"specific_{name}")(vectors[:, place]).astype(jnp.float32)
            for place, name in enumerate(given)
        ]
        specific = jnp.stack(specific, axis=1)  # [B, M, D]
        both = jnp.concatenate([shared, specific], axis=-1)  # [B, M, 2 * D]
        features = shared + nn.Dense(self.width, dtype=self.dtype, name="down")(both).astype(jnp.float32)
        mean = present_mean(jnp.unstack(shared, axis=1), jnp.unstack(present, axis=1))  # [B, D]
        features = jnp.where(present[..., None], features, mean[:, None])  # [B, M, D]
        complete = dict(zip(given, jnp.unstack(features, axis=1), strict=True))
        mask = present.any(axis=1, keepdims=True)  # [B, 1]
        filled = {name: complete.get(name, mean) for name in names}
        filled = {name: Tokens(x[:, None].astype(self.dtype), mask, x) for name, x in filled.items()}
        penalties = {
            "alignment": self.alignment * alignment(shared, present),
            "modality": self.modality
            * self._modality(specific, present, [names.index(name) for name in given], len(names)),
        }
        return filled, penalties

    def _modality(self, specific: jax.Array, present: jax.Array, labels: list[int], count: int) -> jax.Array:
        logits = nn.Dense(count, dtype=jnp.float32, name="classifier")(specific)  # [B, M, K]
        log_likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(labels)[None, :, None], axis=-1)
        return -mean_where(log_likelihood[..., 0], present, axis=1)  # [B]


def alignment(shared: jax.Array, present: jax.Array) -> jax.Array:
    """The mean absolute difference between the features [B, M, D] of all pairs that are present [B, M] -> [B]."""
    first, second = jnp.triu_indices(shared.shape[1], 1)
    pairs = present[:, first] & present[:, second]  # [B, pairs]
    distances = jnp.abs(shared[:, first] - shared[:, second]).mean(axis=-1)  # [B, pairs]
    return mean_where(distances, pairs, axis=1)  # [B]

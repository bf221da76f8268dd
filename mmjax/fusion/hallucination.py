"""Hallucination: what a missing modality would have told is predicted from those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least
from mmjax.core.types import Tokens
from mmjax.fusion.inputs import known, present_mean, project_vectors
from mmjax.layers.mlp import Mlp
from mmjax.layers.pooling import summary


class Hallucination(nn.Module):
    """{modality: Tokens} -> the same with a predicted token where an example lacks the modality, and a penalty.

    For each modality an MLP predicts its vector from the mean of the projected vectors of the others; where the
    modality is there, the penalty 'hallucination' is the mean squared difference to its true vector (behind a stopped
    gradient, so that the encoder need not become predictable). Trained with pairs, and with modality dropout if the
    fusion is to get used to it, it stands in for a sensor that is not there in use.

    A predicted modality is one token [B, 1, D] in the first place, the padding of the modality behind it, and its
    vector `pooled`. An example with nothing at all stays as it is; one that lacks nothing too.

    Attributes:
      width: of the vectors between.
      mlp_dim: hidden units of each MLP.
      weight: of the penalty.
      dtype: compute dtype; vectors and penalty are float32.

    Raises:
      UserError: see fusion.inputs.known; a negative weight.

    References:
      Hoffman et al., Learning with Side Information through Modality Hallucination, 2016, section 3.
    """

    width: int
    mlp_dim: int
    weight: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None
    ) -> tuple[dict[str, Tokens], dict[str, jax.Array]]:
        at_least(0, "Hallucination", weight=self.weight)
        names = known(self, tokens)
        vectors = project_vectors(self, tokens)  # name -> [B, width]
        present = {name: stream.present for name, stream in tokens.items()}  # name -> [B]
        filled, nobody = {}, jnp.zeros_like(next(iter(present.values())))  # [B]
        errors, counted = [nobody.astype(jnp.float32)], [nobody]
        for name in names:
            others = [key for key in vectors if key != name]
            size = summary(tokens[name]).shape[-1] if name in tokens else self._size(name)
            if not others:  # there is nothing to predict it from in this call
                filled[name] = tokens[name]
                continue
            guess, known_from = self._predict(name, size, [vectors[k] for k in others], [present[k] for k in others])
            filled[name] = _filled(tokens.get(name), guess, known_from, self.dtype)
            if name in tokens:
                truth = jax.lax.stop_gradient(summary(tokens[name]))  # [B, D]
                errors.append(jnp.square(guess - truth).mean(axis=-1))
                counted.append(present[name] & known_from)
        return filled, {"hallucination": self.weight * present_mean(errors, counted)}

    def _predict(
        self, name: str, size: int, vectors: list[jax.Array], present: list[jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the predicted vector [B, D] float32 of a modality, and where there was anything to predict from."""
        mean = present_mean(vectors, present)  # [B, width]
        hidden = Mlp(self.mlp_dim, dtype=self.dtype, name=f"mlp_{name}")(mean)  # [B, width]
        guess = nn.Dense(size, dtype=jnp.float32, name=f"guess_{name}")(hidden.astype(jnp.float32))  # [B, D]
        return guess, jnp.stack(present).any(axis=0)

    def _size(self, name: str) -> int:
        return self.get_variable("params", f"guess_{name}")["kernel"].shape[-1]


def _filled(stream: Tokens | None, guess: jax.Array, known_from: jax.Array, dtype: Any) -> Tokens:
    """Returns the stream with guess [B, D] in the first place of the examples that lack it and have something else."""
    if stream is None:
        return Tokens(guess[:, None].astype(dtype), known_from[:, None], guess)
    lacks = known_from & ~stream.present  # [B]
    first = jnp.arange(stream.x.shape[1]) == 0  # [N]
    x = jnp.where((lacks[:, None] & first)[..., None], guess[:, None].astype(stream.x.dtype), stream.x)  # [B, N, D]
    pooled = stream.pooled
    if pooled is not None:
        pooled = jnp.where(lacks[:, None], guess.astype(pooled.dtype), pooled)
    hidden = None if stream.hidden is None else stream.hidden & ~lacks[:, None]
    return Tokens(x, stream.mask | (lacks[:, None] & first), pooled, hidden)

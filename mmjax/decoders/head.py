"""Head: from the joint representation, or the votes of late fusion, to logits or values."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.types import VOTE_RULES, Outputs, Votes
from mmjax.layers.dropout import dropout, fold

KINDS = ("classes", "values")


class Head(nn.Module):
    """Outputs -> [B, size] float32: one linear layer on the joint vector, or one for each vote.

    Votes are combined by their rule. For classes: 'mixture' is the log of the weighted mean of probabilities, 'product'
    the sum of log-probabilities (each to the power of its weight times the number present; with equal weights, the
    plain product of experts). For values both are the weighted mean, which is the mean of a mixture and of a product of
    Gaussians of those precisions. Where no vote weighs anything the answer is 0.

    Attributes:
      size: K.
      kind: 'classes' (logits of K classes) or 'values' (K real numbers).
      dropout: rate on the vectors.
      zero_init: begin with answers of 0, which give all classes the same probability; else with random ones.

    Raises:
      UserError: an unknown kind or rule, or a fusion that makes neither a joint vector nor votes.

    References:
      Hinton, Training Products of Experts by Minimizing Contrastive Divergence, 2002, equation 1.
    """

    size: int
    kind: str = "classes"
    dropout: float = 0.0
    zero_init: bool = False

    @nn.compact
    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> jax.Array:
        one_of(self.kind, KINDS, "Head.kind")
        if outputs.votes is not None:
            return self._combined(outputs.votes, rng)
        return self._answer("joint", outputs.joint("Head"), fold(rng, 0))

    def _answer(self, name: str, vector: jax.Array, rng: jax.Array | None) -> jax.Array:
        vector = dropout(vector.astype(jnp.float32), self.dropout, rng)  # [B, D]
        init = {"kernel_init": nn.initializers.zeros} if self.zero_init else {}
        return nn.Dense(self.size, dtype=jnp.float32, name=name, **init)(vector)  # [B, K]

    def _combined(self, votes: Votes, rng: jax.Array | None) -> jax.Array:
        one_of(votes.rule, VOTE_RULES, "Votes.rule")
        names = sorted(votes.vectors)
        answers = [self._answer(name, votes.vectors[name], fold(rng, i)) for i, name in enumerate(names)]
        answers = jnp.stack(answers, axis=1)  # [B, M, K]
        weights = jnp.stack([votes.weights[name] for name in names], axis=1)[..., None]  # [B, M, 1]
        if self.kind == "values":
            return jnp.sum(weights * answers, axis=1)  # [B, K]
        if votes.rule == "product":
            count = jnp.sum(weights > 0, axis=1, keepdims=True)  # [B, 1, 1]
            return jnp.sum(count * weights * jax.nn.log_softmax(answers), axis=1)  # [B, K]
        return log_mixture(jax.nn.log_softmax(answers), weights)


def log_mixture(logs: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns log sum_m w_m exp(logs_m) [B, K] float32 of logs [B, M, K], weights [B, M, 1]; 0 where all weights are.

    It stays in log space, so that a vote that is wrong and sure of it has its full loss and gradient. A weight of 0 is
    no vote and gets no gradient.
    """
    heard = weights >= jnp.finfo(jnp.float32).tiny  # [B, M, 1]
    anyone = heard.any(axis=1)  # [B, 1]
    logs = logs + jnp.log(jnp.where(heard, weights, 1.0))  # [B, M, K]
    mixture = jax.nn.logsumexp(logs, axis=1, where=heard | ~anyone[:, None])  # [B, K]
    return jnp.where(anyone, mixture, 0.0)

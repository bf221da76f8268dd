"""Sparse mixture of experts: a router sends what each modality gives to a few of the experts that all share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least, one_of
from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.inputs import joint, known, project, project_vectors
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import layer_norm

ITEMS = ("vectors", "tokens")


class SparseMixture(nn.Module):
    """{modality: Tokens} -> fused Tokens [B, T, width], pooled [B, width], weights, and the penalty 'balance'.

    An item x (a modality's vector, or a token) becomes norm(x + sum over its top_k experts of p_e(x) expert_e(x)). In
    the mean over items that is the joint vector, an item counts by the probability of the experts it was sent to, so
    items that the router is sure of count more; `weights` are the sums of that by modality. No item is ever dropped:
    all experts are computed for all items and those not chosen are multiplied by zero. Padding and missing modalities
    are sent to no expert.

    Attributes:
      width: D.
      mlp_dim: hidden units of an expert.
      num_experts, top_k: E, and how many of them an item is sent to.
      items: 'vectors' (one an example and modality) or 'tokens'.
      balance: coefficient of the load-balancing loss; see `load_balance`.
      jitter: in training the router sees its input times uniform noise in [1 - jitter, 1 + jitter].
      dtype: compute dtype of the experts; the router is float32.

    Raises:
      UserError: see fusion.inputs.known; unknown items; a top_k that is not between 1 and num_experts.

    References:
      Shazeer et al., Outrageously Large Neural Networks, 2017, section 2; Fedus et al., Switch Transformers, 2022,
      equations 1 to 6 and section 2.4 (jitter).
    """

    width: int
    mlp_dim: int
    num_experts: int = 4
    top_k: int = 2
    items: str = "vectors"
    balance: float = 0.01
    jitter: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        self._check()
        known(self, tokens)
        parts = self._items(tokens)
        x = jnp.concatenate([part.x for part in parts.values()], axis=1)  # [B, T, D]
        mask = jnp.concatenate([part.mask for part in parts.values()], axis=1)  # [B, T]
        probabilities, chosen = self._route(x, mask, rng)  # [B, T, E]
        gates = jnp.where(chosen, probabilities, 0.0)  # [B, T, E]
        x = layer_norm("norm", x + self._experts(x, gates), self.dtype)  # [B, T, D]
        mass = gates.sum(axis=-1)  # [B, T]
        shares = mass / jnp.maximum(mass.sum(axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)  # [B, T]
        pooled = jnp.einsum("bt,btd->bd", shares, x.astype(jnp.float32))  # [B, D]
        ends = [sum(part.mask.shape[1] for part in list(parts.values())[:place]) for place in range(1, len(parts))]
        weights = {name: s.sum(axis=1) for name, s in zip(parts, jnp.split(shares, ends, axis=1), strict=True)}
        penalties = {"balance": self.balance * load_balance(probabilities, chosen, mask)}
        return Outputs(tokens=dict(tokens), fused=Tokens(x, mask, pooled), weights=weights, penalties=penalties)

    def _check(self) -> None:
        one_of(self.items, ITEMS, "SparseMixture.items")
        at_least(1, "SparseMixture", num_experts=self.num_experts, top_k=self.top_k)
        if self.top_k > self.num_experts:
            raise UserError(f"SparseMixture.top_k={self.top_k} must be at most num_experts={self.num_experts}.")

    def _items(self, tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
        if self.items == "tokens":
            return project(self, tokens)
        x, present = joint(project_vectors(self, tokens), tokens)  # [B, M, D], [B, M]
        x = x.astype(self.dtype)
        return {name: Tokens(x[:, [i]], present[:, [i]]) for i, name in enumerate(sorted(tokens))}

    def _route(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        x = x.astype(jnp.float32)
        if rng is not None and self.jitter > 0:
            low, high = 1 - self.jitter, 1 + self.jitter
            x = x * jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], minval=low, maxval=high))(rng)
        probabilities = jax.nn.softmax(nn.Dense(self.num_experts, dtype=jnp.float32, name="router")(x))  # [B, T, E]
        _, best = jax.lax.top_k(probabilities, self.top_k)  # [B, T, k]
        chosen = jax.nn.one_hot(best, self.num_experts, dtype=bool).any(axis=-2)  # [B, T, E]
        return probabilities, chosen & mask[..., None]

    def _experts(self, x: jax.Array, gates: jax.Array) -> jax.Array:
        experts = nn.vmap(
            Mlp, in_axes=None, axis_size=self.num_experts, variable_axes={"params": 0}, split_rngs={"params": True}
        )(self.mlp_dim, dtype=self.dtype, name="experts")
        return jnp.einsum("bte,ebtd->btd", gates.astype(self.dtype), experts(x))  # [B, T, D]


def load_balance(probabilities: jax.Array, chosen: jax.Array, mask: jax.Array) -> jax.Array:
    """The load-balancing loss E * sum_e f_e P_e as values by example, whose mean over those with any item it is.

    f_e is the share of the batch's choices that expert e has (a count, without gradient), P_e its mean probability over
    the batch's items; 1 where both are uniform. The batch is that of the call: a micro-batch, where one is cut.

    Args:
      probabilities: [B, T, E] of the router.
      chosen: [B, T, E] bool, the experts that an item is sent to.
      mask: [B, T] bool, the items there are.

    Returns:
      [B] float32; 0 for an example without items.

    References:
      Fedus et al., Switch Transformers, 2022, equations 4 to 6.
    """
    chosen = (chosen & mask[..., None]).astype(jnp.float32)
    fraction = chosen.sum(axis=(0, 1)) / jnp.maximum(chosen.sum(), 1.0)  # [E]
    by_example = jnp.sum(jnp.where(mask[..., None], probabilities, 0.0), axis=1)  # [B, E]
    examples = mask.any(axis=1).sum()  # those with any item
    return fraction.size * examples * (by_example @ fraction) / jnp.maximum(mask.sum(), 1)  # [B]

"""Learned tokens in place of a modality that an example lacks."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least
from mmjax.core.types import Tokens
from mmjax.fusion.inputs import known


class LearnedTokens(nn.Module):
    """{modality: Tokens} -> the same with learned ones where an example lacks the modality, and no penalties.

    They stand first, unmasked, with the padding of the modality behind them; the vector `pooled` has a learned one too,
    where the encoder gives any. A modality of the initialisation that is not in the call is given out as
    num_tokens tokens, just as if its masks were all False. An example with nothing at all stays as it is.

    Attributes:
      num_tokens: learned for each modality.

    Raises:
      UserError: see fusion.inputs.known; num_tokens below 1.

    References:
      Ma et al., Are Multimodal Transformers Robust to Missing Modality?, 2022; Lee et al., Multimodal Prompting with
      Missing Modalities for Visual Recognition, 2023, section 3.
    """

    num_tokens: int = 1

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None
    ) -> tuple[dict[str, Tokens], dict[str, jax.Array]]:
        at_least(1, "LearnedTokens", num_tokens=self.num_tokens)
        names = known(self, tokens, "tokens_")
        any_there = jnp.stack([tokens[name].present for name in sorted(tokens)]).any(axis=0)  # [B]
        dtype = next(iter(tokens.values())).x.dtype
        return {name: self._fill(name, tokens.get(name), any_there, dtype) for name in names}, {}

    def _fill(self, name: str, stream: Tokens | None, any_there: jax.Array, dtype: jnp.dtype) -> Tokens:
        stream = self._empty(name, any_there, dtype) if stream is None else stream
        lacks = any_there & ~stream.present  # [B]
        table = self._learned(f"tokens_{name}", (self.num_tokens, stream.x.shape[-1]), stream.x.dtype)
        room = max(self.num_tokens, stream.x.shape[1])
        learned = jnp.pad(table, ((0, room - self.num_tokens), (0, 0)))  # [N, D]
        behind = ((0, 0), (0, room - stream.x.shape[1]))
        x = jnp.where(lacks[:, None, None], learned, jnp.pad(stream.x, (*behind, (0, 0))))  # [B, N, D]
        mask = jnp.where(lacks[:, None], jnp.arange(room) < self.num_tokens, jnp.pad(stream.mask, behind))  # [B, N]
        hidden = stream.hidden
        if hidden is not None:
            hidden = ~lacks[:, None] & jnp.pad(hidden, behind)
        if stream.pooled is None:
            return Tokens(x, mask, hidden=hidden)
        vector = self._learned(f"vector_{name}", (stream.pooled.shape[-1],), stream.pooled.dtype)
        return Tokens(x, mask, jnp.where(lacks[:, None], vector, stream.pooled), hidden)

    def _learned(self, name: str, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return self.param(name, nn.initializers.normal(0.02), shape, jnp.float32).astype(dtype)

    def _empty(self, name: str, any_there: jax.Array, dtype: jnp.dtype) -> Tokens:
        width = self.get_variable("params", f"tokens_{name}").shape[-1]
        size = any_there.shape[0]
        pooled = None
        if self.has_variable("params", f"vector_{name}"):
            pooled = jnp.zeros((size, self.get_variable("params", f"vector_{name}").shape[-1]), dtype)
        mask = jnp.zeros((size, self.num_tokens), bool)
        return Tokens(jnp.zeros((*mask.shape, width), dtype), mask, pooled)

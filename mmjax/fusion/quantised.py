"""Quantised: the tokens of one modality as codes of a learned book, and what the book learns by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, listed
from mmjax.core.types import Codes, Outputs, Tokens
from mmjax.layers.quantise import Codebook, straight_through, unit_length


class Quantised(nn.Module):
    """{modality: Tokens [B, N, D]} -> `Outputs.codes`, and `fused` tokens [B, N, width] made of the codes alone.

    With z the token and e its code, both of unit length, the penalties are the means over the tokens of
    ||sg(z) - e||^2 ('codebook') and commitment ||z - sg(e)||^2 ('commitment'); the gradient of what is decoded passes
    to z as if it had not been quantised. The probabilities of the codes are softmax(cosine / temperature).

    Attributes:
      codebook_size: K.
      width: of the tokens that are given out.
      code_width: d of the codes; far below width, so that near codes are alike.
      commitment: beta.
      temperature: of the probabilities.
      dtype: compute dtype; codes and penalties are float32.

    Raises:
      UserError: not just one modality.

    References:
      van den Oord et al., Neural Discrete Representation Learning, 2017, equation 3; Yu et al., ViT-VQGAN, 2022,
      section 3.2; Peng et al., BEiT v2, 2022, section 2.2.
    """

    codebook_size: int
    width: int
    code_width: int = 32
    commitment: float = 0.25
    temperature: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        if len(tokens) != 1:
            raise UserError(f"Quantised: expected one modality, got {listed(tokens)}.")
        ((name, stream),) = tokens.items()
        z = nn.tanh(nn.Dense(stream.x.shape[-1], dtype=self.dtype, name="up")(stream.x))  # [B, N, D]
        z = unit_length(nn.Dense(self.code_width, dtype=self.dtype, name="code")(z))  # [B, N, d] float32
        index, e, cosines = Codebook(self.codebook_size, name="book")(z)
        x = nn.Dense(self.width, dtype=self.dtype, name="down")(straight_through(z, e))  # [B, N, width]
        penalties = {
            "codebook": _distance(jax.lax.stop_gradient(z), e, stream.mask),
            "commitment": self.commitment * _distance(z, jax.lax.stop_gradient(e), stream.mask),
        }
        codes = _codes(index, jax.nn.log_softmax(cosines / self.temperature), stream.mask)
        fused = Tokens(x, stream.mask, mean_where(x, stream.mask[..., None], axis=1))
        return Outputs(tokens=dict(tokens), fused=fused, codes={name: codes}, penalties=penalties)


def _codes(index: jax.Array, logs: jax.Array, mask: jax.Array) -> Codes:
    """Returns the Codes of log-probabilities [B, N, K]."""
    entropy = -jnp.sum(jnp.exp(logs) * logs, axis=-1)  # [B, N]
    return Codes(index, mean_where(jnp.exp(logs), mask[..., None], axis=1), mean_where(entropy, mask, axis=1))


def _distance(a: jax.Array, b: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean over mask [B, N] of the squared distance of a and b [B, N, d]: [B] float32."""
    return mean_where(jnp.square(a - b).sum(axis=-1), mask, axis=1)

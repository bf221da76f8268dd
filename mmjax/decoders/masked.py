"""Masked prediction: what the hidden tokens of a modality are, from its own encoder or from the fusion."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.types import Outputs, Tokens
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.norm import layer_norm


class MaskedHead(nn.Module):
    """Outputs -> 'logits' [B, M, size] float32 of hidden tokens, their 'positions' [B, M] int32, 'mask' [B, M] bool.

    A dense layer, an activation, LayerNorm and a linear map that begins at 0, so that every class is as likely. Only M
    tokens an example go through it: its hidden ones, in order; where there are fewer, mask is False for the rest. A
    call without the modality has no answer: {}.

    Attributes:
      modality: whose tokens.
      size: classes, or values to predict.
      most: M, the most tokens of an example that may be hidden; more are left out.
      in_context: from the tokens as they leave the fusion; else from those of the encoder alone.
      activation, dtype: as in layers.

    Raises:
      UserError: no tokens of the modality at initialisation; an unknown activation.

    References:
      Devlin et al., BERT, 2019, appendix A.1; Singh et al., FLAVA, 2022, section 3.2.
    """

    modality: str
    size: int
    most: int
    in_context: bool = False
    activation: str = "gelu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, outputs: Outputs, rng: jax.Array | None = None) -> dict[str, jax.Array]:
        tokens = outputs.in_context if self.in_context else outputs.tokens
        if self.modality not in tokens and not self.is_initializing():
            return {}
        one_of(self.modality, tokens, "MaskedHead.modality")
        one_of(self.activation, ACTIVATIONS, "activation")
        x, positions, mask = _picked(tokens[self.modality], self.most)
        x = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="up")(x)
        x = layer_norm("norm", ACTIVATIONS[self.activation](x), self.dtype)
        dot = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        zeros = nn.initializers.zeros
        logits = nn.Dense(self.size, dtype=self.dtype, kernel_init=zeros, dot_general=dot, name="logits")(x)
        return {"logits": logits.astype(jnp.float32), "positions": positions, "mask": mask}  # [B, M, size]


def _picked(tokens: Tokens, most: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (x [B, M, D], positions [B, M], mask [B, M]) of the hidden tokens of each example."""
    hidden = jnp.zeros(tokens.mask.shape, bool) if tokens.hidden is None else tokens.hidden & tokens.mask
    positions = jnp.argsort(~hidden, axis=1, stable=True)[:, :most].astype(jnp.int32)  # [B, M]
    mask = jnp.take_along_axis(hidden, positions, axis=1)
    return jnp.take_along_axis(tokens.x, positions[..., None], axis=1), positions, mask

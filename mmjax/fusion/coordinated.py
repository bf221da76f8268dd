"""Coordinated representation: each modality keeps its own tower and is projected into one shared space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError
from mmjax.core.types import Outputs, Tokens


class Coordinated(nn.Module):
    """Pooled tokens of each modality -> unit vectors [B, E], with the learned temperature of the contrastive loss.

    Attributes:
      projections: modality -> the module that maps its pooled vector into the shared space; a modality without one
        is used as it is (SigLIP's image tower).
      init_logit_scale: initial log of the factor on cosines (CLIP: ln(1 / 0.07), kept below ln 100 by the optimizer's
        `bounds`; SigLIP: ln 10).
      init_logit_bias: initial bias added to the logits (SigLIP: -10), or None for no bias.
      pairs: names of pairs (`tasks.binding`), each of which learns a temperature and bias of its own,
        'logit_scale/image+text' and 'logit_bias/image+text'; without any there is one of each for all.

    Raises:
      UserError: a modality whose encoder gives no pooled vector.

    References:
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, section 2.3;
      Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, section 3.2; several pairs:
      Girdhar et al., ImageBind: One Embedding Space To Bind Them All, 2023, section 3.2.
    """

    projections: Mapping[str, nn.Module]
    init_logit_scale: float
    init_logit_bias: float | None = None
    pairs: Sequence[str] = ()

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        embeddings = {name: self._embed(name, stream.pooled) for name, stream in tokens.items()}
        return Outputs(tokens=dict(tokens), embeddings=embeddings, scalars=self._scalars())

    def _embed(self, name: str, pooled: jax.Array | None) -> jax.Array:
        if pooled is None:
            raise UserError(f"Coordinated: the encoder of {name!r} gives no pooled vector; set its `pool`.")
        if name in self.projections:
            pooled = self.projections[name](pooled)  # [B, E]
        return unit_vectors(pooled)

    def _scalars(self) -> dict[str, jax.Array]:
        scalars = {}
        for suffix in [f"/{pair}" for pair in self.pairs] or [""]:
            scalars[f"logit_scale{suffix}"] = jnp.exp(self._scalar(f"logit_scale{suffix}", self.init_logit_scale))
            if self.init_logit_bias is not None:
                scalars[f"logit_bias{suffix}"] = self._scalar(f"logit_bias{suffix}", self.init_logit_bias)
        return scalars

    def _scalar(self, name: str, value: float) -> jax.Array:
        return self.param(name, nn.initializers.constant(value), (), jnp.float32)


def unit_vectors(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """Returns x [..., E] as float32 with L2 norm 1; a zero vector stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), epsilon**2))

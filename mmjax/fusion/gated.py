"""Gated fusion: how much a modality counts is decided example by example, from the content of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.inputs import joint, known, present_softmax, project_vectors
from mmjax.layers.pooling import summary

GATES = ("softmax", "sigmoid")


class Gated(nn.Module):
    """{modality: Tokens} -> fused Tokens [B, M, width], pooled [B, width] = sum_m gate_m * tanh(W_m v_m).

    The gate of a modality is a linear function of the vectors v of all that are present. gate='sigmoid' with
    per_channel is the published unit for M modalities; gate='softmax' makes the gates of those present sum to 1.

    Attributes:
      width: D of the joint vector.
      gate: 'softmax' over the modalities present, or 'sigmoid' for each alone.
      per_channel: a gate for each channel, else one a modality.
      dtype: compute dtype of the projections; gates are float32.

    `weights` are the gates (the mean over channels where there are several).

    Raises:
      UserError: see fusion.inputs.known; an unknown gate.

    References:
      Arevalo et al., Gated Multimodal Units for Information Fusion, 2017, section 3.1, figure 2a.
    """

    width: int
    gate: str = "softmax"
    per_channel: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        one_of(self.gate, GATES, "Gated.gate")
        names = known(self, tokens)
        vectors = {name: jnp.tanh(vector) for name, vector in project_vectors(self, tokens).items()}
        x, present = joint(vectors, tokens)  # [B, M, D], [B, M]
        given = jnp.asarray([names.index(name) for name in vectors])
        logits = self._logits(names, tokens)[:, given]  # [B, M, 1 or D]
        there = present[..., None]
        gates = present_softmax(logits, there) if self.gate == "softmax" else jnp.where(there, nn.sigmoid(logits), 0.0)
        x = gates * x  # [B, M, D]
        weights = {name: gates[:, place].mean(axis=-1) for place, name in enumerate(vectors)}
        fused = Tokens(x.astype(self.dtype), present, x.sum(axis=1))
        return Outputs(tokens=dict(tokens), fused=fused, weights=weights)

    def _logits(self, names: tuple[str, ...], tokens: Mapping[str, Tokens]) -> jax.Array:
        channels = self.width if self.per_channel else 1
        parts = [
            GateLogits(len(names), channels, name=f"gates_{name}")(summary(tokens[name])) for name in sorted(tokens)
        ]
        bias = self.param("bias", nn.initializers.zeros, (len(names), channels), jnp.float32)
        return sum(parts) + bias  # [B, M, channels]


class GateLogits(nn.Module):
    """What a vector [B, D] of one modality says about the gates of all M: float32 [B, M, channels]; 0 for a zero one.

    Attributes:
      count: M.
      channels: of each gate.
    """

    count: int
    channels: int

    @nn.compact
    def __call__(self, vector: jax.Array) -> jax.Array:
        name = "logits" if self.channels == 1 else "up"  # the sharding rules cut 'up', which is large
        y = nn.Dense(self.count * self.channels, use_bias=False, dtype=jnp.float32, name=name)(vector)
        return y.reshape(-1, self.count, self.channels)  # [B, M, channels]

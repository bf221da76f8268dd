"""Directed cross-modal transformers (MulT): each modality is enriched from every other one, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.inputs import known, pool_tokens, project
from mmjax.layers.cross_attention import CrossBlock
from mmjax.layers.dropout import fold
from mmjax.layers.norm import layer_norm
from mmjax.layers.stack import fields_of, stack
from mmjax.layers.transformer import Block


class CrossModal(nn.Module):
    """{modality: Tokens [B, N_m, D_m]} -> fused Tokens [B, sum of N_m, width], pooled [B, width] float32.

    For each ordered pair a transformer whose queries are the target's tokens and whose keys are the source's; the
    results for one target are put side by side [B, N, (M - 1) * width] and go through a transformer of their own. The
    targets' vectors are put side by side and projected. Attention to a source that is missing adds zero, so what stays
    in its place are the target's own tokens; a target that is missing counts as zero.

    The published model puts a temporal convolution and sin-cos positions first; here the encoders have done that.

    Attributes:
      width, depth, num_heads, mlp_dim: sizes of the directed transformers.
      self_depth: layers of the transformers over what each target has gathered.
      pool: 'last' token (as published), 'mean', 'attention'; see layers.pooling.
      dropout, drop_path, scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: see fusion.inputs.known; an unknown pool.

    References:
      Tsai et al., Multimodal Transformer for Unaligned Multimodal Language Sequences, 2019, section 3, equations 3, 4.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    self_depth: int = 1
    pool: str = "last"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        names = known(self, tokens)
        parts = project(self, tokens)
        found = {}
        for number, name in enumerate(names):
            if name in parts:
                sources = tuple(other for other in names if other != name)
                target = Target(sources=sources, **fields_of(self, Target), name=f"target_{name}")
                found[name] = target(parts[name], parts, fold(rng, number))
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        pooled = sum(target.pooled for target in found.values()) + bias  # [B, D]
        x, mask = (jnp.concatenate([getattr(part, key) for part in found.values()], axis=1) for key in ("x", "mask"))
        return Outputs(tokens=dict(tokens), fused=Tokens(x, mask, pooled))


class Target(nn.Module):
    """What one modality gathers: Tokens [B, N, width] and those of all -> Tokens [B, N, width], pooled [B, width].

    Attributes:
      sources: the modalities to gather from, also those that this call lacks.
      others: as in CrossModal.
    """

    sources: tuple[str, ...]
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    self_depth: int
    pool: str
    dropout: float
    drop_path: float
    scan: bool
    remat: str
    dtype: Any

    @nn.compact
    def __call__(self, own: Tokens, parts: Mapping[str, Tokens], rng: jax.Array | None = None) -> Tokens:
        nothing = Tokens(jnp.zeros_like(own.x[:, :1]), jnp.zeros_like(own.mask[:, :1]))
        how = {"scan": self.scan, "remat": self.remat}
        gathered = []
        for number, name in enumerate(self.sources):
            source = parts.get(name, nothing)
            layers = stack(CrossBlock, fields_of(self, CrossBlock), self.depth, name=f"from_{name}", **how)
            gathered.append(layers(own.x, (source.x, source.mask), fold(rng, number)))
        x = jnp.concatenate(gathered or [own.x], axis=-1)  # [B, N, (M - 1) * D]
        sizes = fields_of(self, Block) | {"mlp_dim": self.mlp_dim * max(len(gathered), 1)}
        x = stack(Block, sizes, self.self_depth, name="blocks", **how)(x, own.mask, fold(rng, len(gathered)))
        x = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="down")(layer_norm("norm", x, self.dtype))
        return Tokens(x, own.mask, pool_tokens(self, "pool", x, own.mask))  # [B, N, D]

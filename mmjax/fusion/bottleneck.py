"""Mid fusion through bottleneck tokens (MBT): modalities exchange what fits into a few shared tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least
from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.co_attention import pool_each
from mmjax.fusion.inputs import class_tokens, known, present_mean, project
from mmjax.layers.dropout import fold
from mmjax.layers.norm import layer_norm
from mmjax.layers.stack import fields_of, stack
from mmjax.layers.transformer import Block


class Bottleneck(nn.Module):
    """{modality: Tokens [B, N_m, D_m]} -> fused Tokens [B, sum of N_m, width], pooled [B, width] float32.

    With pool='first' there is a token more for each modality of the call, before its own.

    Each modality has its own transformer. From layer `fusion_layer` on, its tokens also see the bottleneck tokens, of
    which each modality makes its own update; the mean over the modalities present goes into the next layer. The joint
    vector is the mean of the modalities' vectors, so a linear head on it is the paper's mean of their logits.

    Attributes:
      width, depth, num_heads, mlp_dim: sizes; every modality has depth layers.
      num_bottlenecks: B_f, the number of shared tokens.
      fusion_layer: L_f, the number of layers in which modalities are apart.
      pool: 'first' (a class token a modality, as in the paper), 'mean', 'last', 'attention'; see layers.pooling.
      dropout, drop_path, scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: see fusion.inputs.known; a fusion_layer outside of 0 .. depth - 1; an unknown pool.

    References:
      Nagrani et al., Attention Bottlenecks for Multimodal Fusion, 2021, section 3.2, equations 8 and 9.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    num_bottlenecks: int = 4
    fusion_layer: int = 0
    pool: str = "first"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        self._check()
        names = known(self, tokens)
        parts = class_tokens(self, project(self, tokens))
        masks = {name: part.mask for name, part in parts.items()}
        x = {name: part.x for name, part in parts.items()}
        x, shared = self._alone(names, x, masks, rng), self._bottlenecks(len(next(iter(x.values()))))
        layers = self._stack(BottleneckLayer, {"names": names}, self.depth - self.fusion_layer, "fused")
        x, _ = layers((x, shared), masks, fold(rng, len(names)))
        x = {name: layer_norm(f"norm_{name}", y, self.dtype) for name, y in x.items()}
        return Outputs(tokens=dict(tokens), fused=pool_each(self, x, masks))

    def _check(self) -> None:
        at_least(1, "Bottleneck", num_bottlenecks=self.num_bottlenecks)
        if not 0 <= self.fusion_layer < self.depth:
            raise UserError(
                f"Bottleneck.fusion_layer={self.fusion_layer} must be at least 0 and below depth={self.depth}; "
                "for no exchange at all use fusion.late.Late."
            )

    def _stack(self, layer: type[nn.Module], extra: dict[str, Any], depth: int, name: str) -> Any:
        return stack(layer, extra | fields_of(self, layer), depth, scan=self.scan, remat=self.remat, name=name)

    def _alone(self, names: tuple[str, ...], x: dict, masks: dict, rng: jax.Array | None) -> dict[str, jax.Array]:
        if not self.fusion_layer:
            return x
        return {
            name: self._stack(Block, {}, self.fusion_layer, f"alone_{name}")(x[name], masks[name], fold(rng, number))
            for number, name in enumerate(names)
            if name in x
        }

    def _bottlenecks(self, batch_size: int) -> jax.Array:
        shape = (self.num_bottlenecks, self.width)
        shared = self.param("bottlenecks", nn.initializers.normal(0.02), shape, jnp.float32)
        return jnp.broadcast_to(shared.astype(self.dtype), (batch_size, *shape))  # [B, B_f, D]


class BottleneckLayer(nn.Module):
    """One layer over ({name: x [B, N_m, D]}, shared [B, B_f, D]) with masks [B, N_m].

    Attributes:
      names: of all modalities, also of those that this call lacks.
      others: as in layers.transformer.Block.
    """

    names: tuple[str, ...]
    num_heads: int
    mlp_dim: int
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        carry: tuple[dict[str, jax.Array], jax.Array],
        masks: dict[str, jax.Array],
        rng: jax.Array | None = None,
        layer: int | jax.Array = 0,
    ) -> tuple[tuple[dict[str, jax.Array], jax.Array], None]:
        x, shared = carry
        visible = jnp.ones(shared.shape[:2], bool)  # [B, B_f]
        found, updates = {}, {}
        for number, name in enumerate(self.names):
            if name in x:
                row = jnp.concatenate([shared, x[name]], axis=1)  # [B, B_f + N_m, D]
                mask = jnp.concatenate([visible, masks[name]], axis=1)
                row, _ = Block(**fields_of(self, Block), name=f"block_{name}")(row, mask, fold(rng, number), layer)
                updates[name], found[name] = jnp.split(row, [shared.shape[1]], axis=1)
        present = [masks[name].any(axis=1) for name in found]
        mean = present_mean(list(updates.values()), present).astype(shared.dtype)  # [B, B_f, D]
        return (found, jnp.where(sum(present)[:, None, None] > 0, mean, shared)), None

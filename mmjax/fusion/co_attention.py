"""Mid fusion by co-attention: each modality keeps its tokens, which look at the tokens of all the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.types import Outputs, Tokens
from mmjax.fusion.inputs import class_tokens, known, pool_tokens, present_mean, project
from mmjax.layers.cross_attention import CrossBlock
from mmjax.layers.dropout import fold
from mmjax.layers.norm import layer_norm
from mmjax.layers.stack import fields_of, stack
from mmjax.layers.transformer import Block


class CoAttention(nn.Module):
    """{modality: Tokens [B, N_m, D_m]} -> fused Tokens [B, sum of N_m, width], pooled [B, width] float32.

    With pool='first' there is a token more for each modality of the call, before its own.

    A layer is, for every modality at once, attention to the tokens of all others, then attention to its own. With two
    modalities that is ViLBERT's pair of streams; the joint vector is the mean of the vectors of the modalities present.

    Attributes:
      width, depth, num_heads, mlp_dim: sizes; a layer is two blocks a modality.
      pool: 'first' (a class token a modality), 'mean', 'last', 'attention'; see layers.pooling.
      dropout, drop_path, scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: see fusion.inputs.known; an unknown pool.

    References:
      Lu et al., ViLBERT, 2019, section 2.1; Tan & Bansal, LXMERT, 2019, section 3.2.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    pool: str = "mean"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Mapping[str, Tokens], rng: jax.Array | None = None) -> Outputs:
        names = known(self, tokens)
        parts = class_tokens(self, project(self, tokens))
        masks = {name: part.mask for name, part in parts.items()}
        sizes = {"names": names} | fields_of(self, CoLayer)
        layers = stack(CoLayer, sizes, self.depth, scan=self.scan, remat=self.remat, name="layers")
        x = layers({name: part.x for name, part in parts.items()}, masks, rng)
        x = {name: layer_norm(f"norm_{name}", y, self.dtype) for name, y in x.items()}
        return Outputs(tokens=dict(tokens), fused=pool_each(self, x, masks))


class CoLayer(nn.Module):
    """One layer of CoAttention over name -> x [B, N_m, D] and masks [B, N_m].

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
        x: dict[str, jax.Array],
        masks: dict[str, jax.Array],
        rng: jax.Array | None = None,
        layer: int | jax.Array = 0,
    ) -> tuple[dict[str, jax.Array], None]:
        rng = fold(rng, layer)
        found = {}
        for number, name in enumerate(self.names):
            if name in x:
                context = others(name, x, masks)
                y, _ = CrossBlock(**fields_of(self, CrossBlock), name=f"cross_{name}")(
                    x[name], context, fold(rng, 2 * number)
                )
                y, _ = Block(**fields_of(self, Block), name=f"self_{name}")(y, masks[name], fold(rng, 2 * number + 1))
                found[name] = y  # [B, N_m, D]
        return found, None


def others(name: str, x: Mapping[str, jax.Array], masks: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Returns the tokens [B, M, D] and masks [B, M] of all modalities but name; one masked token if there is none."""
    rest = [other for other in sorted(x) if other != name]
    if not rest:
        return jnp.zeros_like(x[name][:, :1]), jnp.zeros_like(masks[name][:, :1])
    return tuple(jnp.concatenate([values[other] for other in rest], axis=1) for values in (x, masks))


def pool_each(module: nn.Module, x: Mapping[str, jax.Array], masks: Mapping[str, jax.Array]) -> Tokens:
    """Returns all tokens in one row, pooled by modality and averaged over the modalities present."""
    names = sorted(x)
    vectors = [pool_tokens(module, f"pool_{name}", x[name], masks[name]) for name in names]  # M x [B, D]
    pooled = present_mean(vectors, [masks[name].any(axis=1) for name in names])  # [B, D]
    row, mask = (jnp.concatenate([values[name] for name in names], axis=1) for values in (x, masks))
    return Tokens(row, mask, pooled)

"""Transformer, pre-norm or post-norm: one block, and a stack of them scanned over layers with a remat policy."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.layers.attention import Attention
from mmjax.layers.dropout import drop_path, dropout, fold
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import layer_norm
from mmjax.layers.remat import keep
from mmjax.layers.stack import fields_of, stack

NORMS = ("pre", "post")


def residual(block: nn.Module, rng: jax.Array | None, x: jax.Array, branch: jax.Array, part: int) -> jax.Array:
    """Returns x + branch, with the block's dropout and drop_path on the branch; part is the branch's number."""
    branch = dropout(branch, block.dropout, fold(rng, 2 * part))
    return keep(constrain_batch(x + drop_path(branch, block.drop_path, fold(rng, 2 * part + 1))))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with norm='post', norm(x + attention(x)), then norm(x + mlp(x)).

    Attributes:
      num_heads, mlp_dim: sizes.
      causal, use_rotary, activation: as in Attention and Mlp.
      dropout: rate on the output of each branch; drop_path: rate of dropping a branch of an example.
      dtype: compute dtype.
      norm: where LayerNorm is: 'pre', before each branch, or 'post', after each sum (the first transformer, BERT).

    Raises:
      UserError: an unknown norm.

    References:
      Xiong et al., On Layer Normalization in the Transformer Architecture, 2020; 'post': Vaswani et al., Attention Is
      All You Need, 2017, section 3.1.
    """

    num_heads: int
    mlp_dim: int
    causal: bool = False
    use_rotary: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    norm: str = "pre"

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None, layer: int | jax.Array = 0
    ) -> tuple[jax.Array, None]:
        one_of(self.norm, NORMS, "transformer.norm")
        add = functools.partial(residual, self, fold(rng, layer))
        attention = Attention(self.num_heads, self.causal, self.use_rotary, dtype=self.dtype, name="attention")
        mlp = Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")
        if self.norm == "post":
            x = layer_norm("norm_attention", add(x, attention(x, mask=mask), 0), self.dtype)  # [B, N, D]
            return layer_norm("norm_mlp", add(x, mlp(x), 1), self.dtype), None  # [B, N, D]
        x = add(x, attention(layer_norm("norm_attention", x, self.dtype), mask=mask), 0)  # [B, N, D]
        return add(x, mlp(layer_norm("norm_mlp", x, self.dtype)), 1), None  # [B, N, D]


class Transformer(nn.Module):
    """A stack of `depth` blocks over x [B, N, D] with key mask [B, N] and optional per-example keys rng [B].

    Attributes:
      depth: number of blocks.
      scan: compile one block and loop over stacked parameters [depth, ...]; else unroll (parameters in block_0 ...).
      remat: what the backward pass computes again: 'none', 'core' (all but matrix products and residual sums), 'mlp'
        (the hidden layer too), 'full' (each block from its input), or the name of a policy in jax.checkpoint_policies;
        see layers.remat.
      batch_parts: every block takes the batch in so many parts, one after the other, so that a device can keep the
        attention probabilities of a part in on-chip memory; see layers.stack.
      others: as in Block.

    Raises:
      UserError: an unknown remat policy or norm, or depth below 1.
    """

    depth: int
    num_heads: int
    mlp_dim: int
    causal: bool = False
    use_rotary: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    batch_parts: int = 1
    dtype: Any = jnp.float32
    norm: str = "pre"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None) -> jax.Array:
        at_least(1, "transformer", batch_parts=self.batch_parts)
        looked_at = self.is_mutable_collection("intermediates")  # what is stored there is of the whole batch
        how = {"scan": self.scan, "remat": self.remat, "batch_parts": 1 if looked_at else self.batch_parts}
        blocks = stack(Block, fields_of(self, Block), self.depth, **how, name="blocks", each="block")
        return blocks(x, mask, rng)


def transformer_of(module: nn.Module, **more: Any) -> Transformer:
    """Returns the Transformer 'transformer' of an encoder or fusion, with the fields of those names that module has."""
    return Transformer(**fields_of(module, Transformer) | more, name="transformer")

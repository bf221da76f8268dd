"""SigLIP's towers as big_vision builds them, written anew from its papers and options: the peer without a checkout.

Blocks of stock linen layers, scanned with full rematerialisation; bfloat16 matrix products in the image tower, float32
in the text tower and the heads. Zhai et al., Scaling Vision Transformers, 2022; Sigmoid Loss for Language Image
Pre-Training, 2023.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

SIZES = {"B": (768, 12, 12), "L": (1024, 24, 16)}
"""Name -> width, depth, heads; a block's hidden layer is four times as wide."""


def by_example(x: jax.Array) -> jax.Array:
    """Returns x [B, ...] cut over the devices by its examples, as its trainer's rule for activations has it."""
    return jax.lax.with_sharding_constraint(x, P("data"))


class Mlp(nn.Module):
    """x [..., D] -> [..., D]."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = by_example(nn.gelu(nn.Dense(4 * x.shape[-1], dtype=self.dtype)(x)))
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class Block(nn.Module):
    """One pre-norm block, with the signature of nn.scan."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = nn.LayerNorm()(by_example(x))
        x = by_example(x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(y, y))
        return by_example(x + Mlp(self.dtype)(nn.LayerNorm()(x))), None


class Encoder(nn.Module):
    """x [B, N, D] -> [B, N, D], one compiled block."""

    depth: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = nn.remat(Block, prevent_cse=False, policy=jax.checkpoint_policies.nothing_saveable)
        scanned = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        return nn.LayerNorm()(scanned(self.heads, self.dtype)(x, None)[0])


class ImageTower(nn.Module):
    """float32 pictures [B, 224, 224, 3] -> [B, D], pooled by attention."""

    variant: str

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        name, _, patch = self.variant.partition("/")
        width, depth, heads = SIZES[name]
        x = nn.Conv(width, (int(patch),) * 2, (int(patch),) * 2, padding="VALID", dtype=jnp.bfloat16)(images)
        x = x.reshape(len(x), -1, width)  # [B, N, D]
        x = x + self.param("positions", nn.initializers.normal(width**-0.5), (1, *x.shape[1:]))
        x = Encoder(depth, heads, jnp.bfloat16)(x)
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width))
        x = nn.MultiHeadDotProductAttention(heads)(jnp.tile(probe, (len(x), 1, 1)), x)  # [B, 1, D]
        return (x + Mlp(jnp.float32)(nn.LayerNorm()(x)))[:, 0]


class TextTower(nn.Module):
    """Token ids [B, N] -> [B, D], from the last position."""

    name_of_size: str
    vocab_size: int

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        width, depth, heads = SIZES[self.name_of_size]
        x = nn.Embed(self.vocab_size, width)(ids)  # [B, N, D]
        x = x + self.param("positions", nn.initializers.normal(width**-0.5), (1, *x.shape[1:]))
        return nn.Dense(width)(Encoder(depth, heads, jnp.float32)(x)[:, -1])


class TwoTowers(nn.Module):
    """Called as big_vision's two towers are: (images, ids) -> unit vectors [B, D] of both, and {'t', 'b'}."""

    variant: str
    vocab_size: int = 32_000

    @nn.compact
    def __call__(self, images: jax.Array, ids: jax.Array, train: bool = True) -> tuple[Any, Any, dict[str, jax.Array]]:
        del train
        image = ImageTower(self.variant)(images)
        text = TextTower(self.variant.partition("/")[0], self.vocab_size)(ids)
        temperature = self.param("t", nn.initializers.constant(math.log(10)), ())
        bias = self.param("b", nn.initializers.constant(-10.0), ())
        unit = [x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-8) for x in (image, text)]
        return *unit, {"t": jnp.exp(temperature), "b": bias}

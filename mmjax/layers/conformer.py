"""Conformer: attention for what is far, a depthwise convolution for what is near, between two halves of an MLP.

Where it differs from the paper: the convolution module has LayerNorm in place of BatchNorm, whose statistics would
mix the examples of a batch (padding included) and keep a state; and attention has rotary positions in place of
Transformer-XL's, which are relative too and cost no parameters. The kernel has 31 taps by default where the paper's
table 1 has 32: an odd number of them is centred on its position.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import at_least
from mmjax.core.mesh import BATCH_AXES, constrain
from mmjax.layers.attention import Attention
from mmjax.layers.dropout import dropout, fold
from mmjax.layers.norm import layer_norm
from mmjax.layers.remat import keep
from mmjax.layers.stack import fields_of, stack
from mmjax.layers.transformer import residual


class FeedForward(nn.Module):
    """x [B, N, D] -> [B, N, D] through hidden units of Swish.

    Attributes:
      hidden: width between the two layers.
      dropout: rate after the activation.
      dtype: compute dtype.
    """

    hidden: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        init = nn.initializers.xavier_uniform()
        y = keep(nn.Dense(self.hidden, dtype=self.dtype, kernel_init=init, name="up")(x), wide=True)  # [B, N, hidden]
        y = dropout(constrain(nn.swish(y), BATCH_AXES, None, "tensor"), self.dropout, rng)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="down")(y)  # [B, N, D]


class DepthwiseConvolution(nn.Module):
    """x [B, N, D] -> [B, N, D] float32: each channel by itself over N, zeros beyond the ends.

    A sum of shifted products, which XLA fuses into one loop; its grouped convolution is many times slower on a CPU.
    For the backward pass x is kept once, whatever the number of taps: the shifted copies are made again.

    Attributes:
      kernel_size: taps; where even, one more lies after a position than before it.
    """

    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        at_least(1, "conformer", kernel_size=self.kernel_size)
        shape = (self.kernel_size, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)  # [K, D]
        bias = self.param("bias", nn.initializers.zeros_init(), shape[1:], jnp.float32)
        return jax.checkpoint(_tap_sum)(x, kernel, bias)  # [B, N, D]


def _tap_sum(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns bias [D] + the sum over the taps of kernel [K, D] times x [B, N, D] shifted, centred, zeros beyond it."""
    size, length = len(kernel), x.shape[1]
    x = jnp.pad(x, ((0, 0), ((size - 1) // 2, size // 2), (0, 0)))  # [B, N + K - 1, D]
    return sum((x[:, tap : tap + length] * kernel[tap] for tap in range(size)), bias)  # [B, N, D]


class ConvolutionModule(nn.Module):
    """x [B, N, D] with mask [B, N] -> [B, N, D]: gated pointwise, depthwise over N, norm, Swish, pointwise.

    Masked positions are zero before the depthwise convolution, so that padding does not leak into what is beside it.

    Attributes:
      kernel_size: taps of the depthwise convolution.
      dtype: compute dtype.
    """

    kernel_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        width, init = x.shape[-1], nn.initializers.xavier_uniform()
        y = nn.glu(keep(nn.Dense(2 * width, dtype=self.dtype, kernel_init=init, name="up")(x)))  # [B, N, D]
        y = y if mask is None else jnp.where(mask[..., None], y, 0)
        y = keep(DepthwiseConvolution(self.kernel_size, name="depthwise")(y))
        y = nn.swish(layer_norm("norm", y, self.dtype))
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name="down")(y)  # [B, N, D]


class ConformerBlock(nn.Module):
    """Half an MLP, attention, convolution, half an MLP, each a pre-norm residual branch; then a norm.

    Attributes:
      num_heads, mlp_dim, kernel_size: sizes.
      dropout: rate on the output of each branch and within the MLPs.
      drop_path: rate of dropping a branch of an example.
      dtype: compute dtype.

    References:
      Gulati et al., Conformer: Convolution-augmented Transformer for Speech Recognition, 2020, section 2.4.
    """

    num_heads: int
    mlp_dim: int
    kernel_size: int = 31
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None, layer: int | jax.Array = 0
    ) -> tuple[jax.Array, None]:
        rng = fold(rng, layer)

        add = functools.partial(residual, self, rng)

        def half(name: str, x: jax.Array, part: int) -> jax.Array:
            module = FeedForward(self.mlp_dim, self.dropout, self.dtype, name=name)
            return 0.5 * module(layer_norm(f"norm_{name}", x, self.dtype), fold(rng, 8 + part))

        attention = Attention(self.num_heads, use_rotary=True, dtype=self.dtype, name="attention")
        convolution = ConvolutionModule(self.kernel_size, self.dtype, name="convolution")
        x = add(x, half("mlp_first", x, 0), 0)  # [B, N, D]
        x = add(x, attention(layer_norm("norm_attention", x, self.dtype), mask=mask), 1)
        x = add(x, convolution(layer_norm("norm_convolution", x, self.dtype), mask), 2)
        x = add(x, half("mlp_last", x, 3), 3)
        return layer_norm("norm", x, self.dtype), None


class Conformer(nn.Module):
    """A stack of `depth` ConformerBlocks over x [B, N, D] with mask [B, N] and optional per-example keys rng [B].

    Attributes:
      depth, scan, remat: as in layers.transformer.Transformer.
      others: as in ConformerBlock.
    """

    depth: int
    num_heads: int
    mlp_dim: int
    kernel_size: int = 31
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None) -> jax.Array:
        sizes = fields_of(self, ConformerBlock)
        blocks = stack(ConformerBlock, sizes, self.depth, scan=self.scan, remat=self.remat, name="blocks", each="block")
        return blocks(x, mask, rng)

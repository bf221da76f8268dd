"""ResNet image encoder with group normalisation: convolutions without the state of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.pooling import Pool
from mmjax.layers.remat import keep
from mmjax.layers.stack import stack

RESNET_SIZES = {
    "18": {"stage_sizes": (2, 2, 2, 2), "bottleneck": False},
    "34": {"stage_sizes": (3, 4, 6, 3), "bottleneck": False},
    "50": {"stage_sizes": (3, 4, 6, 3), "bottleneck": True},
    "101": {"stage_sizes": (3, 4, 23, 3), "bottleneck": True},
    "152": {"stage_sizes": (3, 8, 36, 3), "bottleneck": True},
}
"""Blocks of each stage and their kind, by the number of layers (He et al. 2016, table 1)."""


def resnet_sizes(variant: str) -> dict[str, Any]:
    """Returns the sizes of a variant such as '50' or '50x3' (layers x width), as keyword arguments of ResNetEncoder.

    Raises:
      UserError: an unknown variant.
    """
    name, _, factor = variant.partition("x")
    one_of(name, RESNET_SIZES, f"ResNet variant {variant!r}")
    if factor and not (factor.isdigit() and int(factor)):
        raise UserError(f"ResNet variant {variant!r}: expected LAYERSxWIDTH with a whole factor, as in '50x3'.")
    return {**RESNET_SIZES[name], "width_factor": int(factor or 1)}


class Conv(nn.Conv):
    """A convolution without bias; with `standardise` each output's kernel has mean 0 and variance 1.

    References:
      Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019, equation 3.
    """

    standardise: bool = False
    use_bias: bool = False

    def param(self, name: str, *args: Any, **kwargs: Any) -> jax.Array:
        """Returns the parameter as the convolution uses it."""
        value = super().param(name, *args, **kwargs)
        if name != "kernel" or not self.standardise:
            return value
        value = value - value.mean(axis=(0, 1, 2), keepdims=True)  # [kh, kw, in, out]
        return value * jax.lax.rsqrt(value.var(axis=(0, 1, 2), keepdims=True) + 1e-10)


class ConvNorm(nn.Module):
    """Convolution, group normalisation in float32, ReLU where `relu` says so: [B, H, W, C] -> [B, h, w, features].

    Attributes:
      features, kernel, strides: of the convolution, padded alike on both sides.
      num_groups: of the normalisation; must divide features.
      standardise: see Conv.
      scale_init: the first value of the normalisation's scale.
      dtype: compute dtype.
    """

    features: int
    kernel: int
    strides: int = 1
    num_groups: int = 32
    standardise: bool = False
    relu: bool = True
    scale_init: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(
            self.features,
            (self.kernel, self.kernel),
            (self.strides, self.strides),
            padding=(self.kernel - 1) // 2,
            standardise=self.standardise,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            dtype=self.dtype,
            name="conv",
        )(x)
        x = keep(x)
        scale = nn.initializers.constant(self.scale_init)
        x = nn.GroupNorm(self.num_groups, epsilon=1e-5, dtype=jnp.float32, scale_init=scale, name="norm")(x)
        return (nn.relu(x) if self.relu else x).astype(self.dtype)


class ResidualBlock(nn.Module):
    """relu(x + branch(x)) over [B, H, W, C]; the last normalisation of the branch starts at 0.

    Attributes:
      features: of the 3x3 convolutions; a bottleneck's output has four times as many.
      bottleneck: 1x1, 3x3, 1x1 convolutions, else 3x3, 3x3.
      strides: of the (first) 3x3 convolution: ResNet v1.5.
      num_groups, standardise, dtype: as in ConvNorm.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016, section 4.1; Goyal et al., Accurate, Large
      Minibatch SGD, 2017, section 5.1 (the scale of 0).
    """

    features: int
    bottleneck: bool
    strides: int = 1
    num_groups: int = 32
    standardise: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, constant: Any = None, rng: jax.Array | None = None, number: int | jax.Array = 0
    ) -> tuple[jax.Array, None]:
        del constant, rng, number  # what layers.stack gives
        shared = {"num_groups": self.num_groups, "standardise": self.standardise, "dtype": self.dtype}
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strides = (1, self.strides, 1) if self.bottleneck else (self.strides, 1)
        widths = (self.features,) * (len(kernels) - 1) + (self.features * (4 if self.bottleneck else 1),)
        y = x
        for place, (width, kernel, step) in enumerate(zip(widths, kernels, strides, strict=True)):
            last = {"relu": False, "scale_init": 0.0} if place == len(kernels) - 1 else {}
            y = ConvNorm(width, kernel, step, **shared, **last, name=f"conv_{place + 1}")(y)
        if x.shape != y.shape:
            x = ConvNorm(widths[-1], 1, self.strides, **shared, relu=False, name="shortcut")(x)
        return constrain_batch(nn.relu(x + y)), None  # [B, H / strides, W / strides, widths[-1]]


class ResNetEncoder(nn.Module):
    """ResNet v1.5: uint8 pixels [B, H, W, 3] -> Tokens [B, h * w, C], the places of the last feature map, row by row.

    Batch normalisation would make an example's output depend on the others of its batch, and on running averages
    that the train step had to carry; group normalisation (32 groups) needs neither, so the encoder stays a pure
    function of parameters and pixels, the same at any batch size, on any mesh and under gradient accumulation. With
    weight standardisation it is trained as well as with batch normalisation (BiT).

    h and w are the sides divided by 32, rounded up (by 8 with the small stem), C is 512 (18, 34) or 2048 times
    width_factor.

    Attributes:
      stage_sizes: blocks of the four stages; see `resnet_sizes`.
      bottleneck: see ResidualBlock.
      width_factor: multiplies the width of every layer (BiT's x3).
      width: of the first layer, before width_factor.
      stem: 'imagenet': 7x7 convolution of stride 2, then max-pooling of stride 2; 'small': 3x3 of stride 1, for
        pictures of 32 to 64 pixels (He et al., section 4.2).
      weight_standardisation: see Conv.
      num_groups: of the normalisation.
      pool: 'mean', 'attention' (with num_heads and mlp_dim) or 'none'; see layers.pooling.
      mean, std: per channel, of pixels in [0, 1]; normalised here, on the device.
      scan: the blocks of a stage behind its first are alike and compiled once, with stacked parameters.
      remat: 'none', 'core' (all but convolutions is computed again), 'full' (each block from its input) or the name of
        a policy in jax.checkpoint_policies.
      dtype: compute dtype.

    Raises:
      UserError: values that are not [B, H, W, 3], groups that do not divide the width, or an unknown remat.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016; Wu & He, Group Normalization, 2018; Kolesnikov et
      al., Big Transfer (BiT), 2020, section 3.
    """

    stage_sizes: Sequence[int]
    bottleneck: bool = True
    width_factor: int = 1
    width: int = 64
    stem: str = "imagenet"
    weight_standardisation: bool = False
    num_groups: int = 32
    pool: str = "mean"
    num_heads: int = 8
    mlp_dim: int = 2048
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        del rng  # nothing here is drawn
        self._check(stream)
        x = constrain_batch(self._stem(self._normalise(stream.values)))  # [B, H / 4, W / 4, width]
        for stage, blocks in enumerate(self.stage_sizes):
            x = self._stage(x, stage, blocks)
        x = einops.rearrange(x, "b h w c -> b (h w) c")
        mask = einops.repeat(stream.mask.any(axis=1), "b -> b n", n=x.shape[1])  # [B, h * w]
        return Tokens(x, mask, Pool(self.pool, self.num_heads, self.mlp_dim, dtype=self.dtype, name="pool")(x, mask))

    def _check(self, stream: Stream) -> None:
        shape = tuple(stream.values.shape)
        if len(shape) != 4 or shape[-1] != 3:
            raise UserError(f"image: expected values [batch, height, width, 3], got {shape}.")
        one_of(self.stem, ("imagenet", "small"), "stem")
        one_of(self.pool, ("mean", "attention", "none"), "pool")
        if self.width * self.width_factor % self.num_groups:
            raise UserError(
                f"resnet: the width {self.width * self.width_factor} is not a multiple of num_groups={self.num_groups}."
            )

    def _normalise(self, pixels: jax.Array) -> jax.Array:
        mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
        return ((pixels.astype(jnp.float32) / 255.0 - mean) / std).astype(self.dtype)

    def _sizes(self) -> dict[str, Any]:
        return {"num_groups": self.num_groups, "standardise": self.weight_standardisation, "dtype": self.dtype}

    def _stem(self, x: jax.Array) -> jax.Array:
        small = self.stem == "small"
        width = self.width * self.width_factor
        x = ConvNorm(width, 3 if small else 7, 1 if small else 2, **self._sizes(), name="stem")(
            x
        )  # [B, H / 2, W / 2, C]
        return x if small else nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # [B, H / 4, W / 4, C]

    def _stage(self, x: jax.Array, stage: int, blocks: int) -> jax.Array:
        features = self.width * self.width_factor * 2**stage
        sizes = {"features": features, "bottleneck": self.bottleneck, **self._sizes()}
        first = stack(
            ResidualBlock,
            sizes | {"strides": 1 if stage == 0 else 2},
            1,
            scan=False,
            remat=self.remat,
            name=f"stage_{stage + 1}_first",
        )
        x = first(x, None, None)  # [B, H / 2, W / 2, C]
        if blocks == 1:
            return x
        rest = stack(ResidualBlock, sizes, blocks - 1, scan=self.scan, remat=self.remat, name=f"stage_{stage + 1}")
        return rest(x, None, None)

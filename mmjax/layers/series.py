"""Time series as tokens: patches of samples or of their power spectrum, after a convolution stem; normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import at_least
from mmjax.layers.spectrum import power_spectrum

POWER_FLOOR = 1e-6
"""Added to a power before its logarithm; of values with a standard deviation near 1."""


def num_patches(length: int, patch_size: int, stride: int) -> int:
    """Returns how many patches cover `length` samples, the last one filled up where it reaches over the end."""
    return 1 + max(0, -(-(length - patch_size) // stride))


def series_patches(x: jax.Array, patch_size: int, stride: int) -> jax.Array:
    """Returns [R, P, patch_size, ...]: windows of x [R, T, ...], `stride` samples apart, zeros after the end.

    References:
      Nie et al., A Time Series is Worth 64 Words (PatchTST), 2023, section 3.1.
    """
    count = num_patches(x.shape[1], patch_size, stride)
    room = max(0, (count - 1) * stride + patch_size - x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, room)) + ((0, 0),) * (x.ndim - 2))
    if stride == patch_size:
        return x.reshape(x.shape[0], count, patch_size, *x.shape[2:])
    samples = jnp.arange(count)[:, None] * stride + jnp.arange(patch_size)  # [P, patch_size]
    return x[:, samples]


def instance_norm(x: jax.Array, measured: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Returns x [B, T, C] float32 with mean 0 and variance 1 over the measured samples of each channel of each example.

    What was not measured is 0 before and after, and counts for nothing. The unit of a channel is nothing either, volts
    or microvolts: what keeps a constant one at 0, its rounding too, is epsilon times the square of its mean, which is
    added to the variance.

    References:
      Kim et al., Reversible Instance Normalization (RevIN), 2022, equation 1; without its affine parameters.
    """
    peak = jnp.max(jnp.abs(x), axis=1, keepdims=True, where=measured, initial=0.0)  # [B, 1, C]
    some = peak >= jnp.finfo(jnp.float32).tiny
    x = x / jax.lax.stop_gradient(jnp.where(some, peak, 1.0))  # the scale cancels; squares of it would leave float32
    mean = mean_where(x, measured, axis=1, keepdims=True)  # [B, 1, C]
    centred = jnp.where(measured, x - mean, 0.0)
    variance = mean_where(jnp.square(centred), measured, axis=1, keepdims=True)  # [B, 1, C]
    return centred * jax.lax.rsqrt(jnp.where(some, variance + epsilon * jnp.square(mean), 1.0))


def log_power(patches: jax.Array) -> jax.Array:
    """Returns [..., K // 2 + 1, F] float32: the log power spectrum of patches [..., K, F] under a periodic Hann window.

    Power is |DFT|^2 over the window's energy, so white noise of variance v has an expected power of v in every band.
    """
    size = patches.shape[-2]
    window = 0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(size, dtype=jnp.float32) / size)  # [K]
    frames = jnp.swapaxes(patches.astype(jnp.float32) * window[:, None], -1, -2)  # [..., F, K]
    power = power_spectrum(frames, size) / jnp.sum(jnp.square(window))  # [..., F, K // 2 + 1]
    return jnp.swapaxes(jnp.log(power + POWER_FLOOR), -1, -2)  # [..., K // 2 + 1, F]


class SeriesStem(nn.Module):
    """Convolutions over time: x [R, T, F] with mask [R, T] -> [R, T, widths[-1]]; the length stays.

    Attributes:
      widths: of each layer, a GELU after each.
      kernel_size: taps of a convolution.
      dilation: the taps of layer l are dilation**l samples apart; with 2 or 3 a few layers see long waves.
      dtype: compute dtype.

    Samples that the mask leaves out are 0 after every layer, as the padding at the borders is.

    References:
      Xiao et al., Early Convolutions Help Transformers See Better, 2021; van den Oord et al., WaveNet, 2016, section
      2.1 (dilation).
    """

    widths: Sequence[int]
    kernel_size: int = 7
    dilation: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        at_least(1, "stem", kernel_size=self.kernel_size, dilation=self.dilation, widths=min(self.widths))
        for layer, width in enumerate(self.widths):
            spacing = self.dilation**layer
            conv = nn.Conv(width, (self.kernel_size,), kernel_dilation=spacing, dtype=self.dtype, name=f"layer_{layer}")
            x = conv(x)  # [R, T, width]
            x = jnp.where(mask[..., None], nn.gelu(x, approximate=False), 0)
        return x


class SeriesPatchEmbedding(nn.Module):
    """x [R, T, F] with measured [R, T, M] -> (tokens [R, P, width], mask [R, P]), by one matmul a patch.

    Beside its values, a patch brings 1 for each sample that was not measured and 0 for each that was. The mask is
    False for a patch of which nothing was measured.

    Attributes:
      width: D of the tokens.
      patch_size, stride: see series_patches.
      spectrogram: a patch's values are the log power of its spectrum.
      dtype: compute dtype.
    """

    width: int
    patch_size: int
    stride: int
    spectrogram: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, measured: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = series_patches(x, self.patch_size, self.stride)  # [R, P, K, F]
        measured = series_patches(measured, self.patch_size, self.stride)  # [R, P, K, M]
        x = log_power(x) if self.spectrogram else x  # [R, P, K', F]
        parts = (x, 1.0 - measured.astype(x.dtype))
        flat = jnp.concatenate([einops.rearrange(part, "r p k f -> r p (k f)") for part in parts], axis=-1)
        tokens = nn.Dense(self.width, dtype=self.dtype, name="embedding")(flat)  # [R, P, D]
        return tokens, measured.any(axis=(2, 3))


class SeriesTokens(nn.Module):
    """values [B, R, T, F] with measured [B, R, T, M] -> (tokens [B, R, P, width], mask [B, R, P]); R rows share it all.

    Attributes:
      stem, stem_kernel, stem_dilation: as in SeriesStem, which sees the values and what is missing; no stem where the
        first is empty.
      others: as in SeriesPatchEmbedding.
    """

    width: int
    patch_size: int
    stride: int
    stem: Sequence[int] = ()
    stem_kernel: int = 7
    stem_dilation: int = 1
    spectrogram: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, values: jax.Array, measured: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = values.shape[0]
        values, measured = (einops.rearrange(a, "b r t f -> (b r) t f") for a in (values, measured))
        if self.stem:
            values = jnp.concatenate([values, 1.0 - measured.astype(values.dtype)], axis=-1)  # [B R, T, F + M]
            stem = SeriesStem(self.stem, self.stem_kernel, self.stem_dilation, self.dtype, name="stem")
            values = stem(values, measured.any(axis=-1))  # [B R, T, F']
        patches = SeriesPatchEmbedding(
            self.width, self.patch_size, self.stride, self.spectrogram, self.dtype, name="patches"
        )
        tokens, mask = patches(values, measured)  # [B R, P, D], [B R, P]
        return (
            einops.rearrange(tokens, "(b r) p d -> b r p d", b=batch),
            einops.rearrange(mask, "(b r) p -> b r p", b=batch),
        )

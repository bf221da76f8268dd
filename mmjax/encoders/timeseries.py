"""Time-series encoder: patches of each channel, or of all channels together, in a transformer (PatchTST)."""

from __future__ import annotations

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError, at_least, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.dropout import dropout, fold
from mmjax.layers.fourier import fourier_features, geometric_wavelengths
from mmjax.layers.norm import layer_norm
from mmjax.layers.pooling import Pool, class_token
from mmjax.layers.posemb import LearnedPositions, sincos_1d
from mmjax.layers.series import SeriesTokens, instance_norm
from mmjax.layers.stack import fields_of
from mmjax.layers.transformer import transformer_of


class SeriesEncoder(nn.Module):
    """float32 samples [B, T, C] with mask [B, T] -> Tokens [B, N, width]: IMU, radar returns, GPS tracks, EEG, ECG.

    What is not finite is a sample that was not made. A patch with no measured sample is a token that is masked, so a
    channel that is missing leaves the tokens of the others as they are; in a patch that is measured in part, an
    indicator says where.

    With separate channels the C P tokens of P patches are one sequence, in which channels attend to one another, at a
    cost of attention of (C P)^2. PatchTST passes every channel through the transformer by itself, for C P^2.

    Attributes:
      patch_size: samples of a patch; P patches cover the T samples.
      width, depth, num_heads, mlp_dim: sizes.
      stride: samples from patch to patch; None is patch_size. The STFT's hop, with `spectrogram`.
      channels: 'separate', a token for every patch of every channel (N = C P, channel by channel, one embedding of
        the channel added to its tokens), or 'joint', a token for the patches of all channels (N = P).
      stem: widths of convolutions over the samples, before patches are cut; over channels too where they are joint.
      stem_kernel: taps of a convolution.
      stem_dilation: samples from tap to tap, to the power of the layer's number from 0; see layers.series.SeriesStem.
      spectrogram: a patch is the log power of its spectrum, not its samples; see layers.series.log_power.
      mean, std: one for each channel, to normalise with; None leaves the values as they are.
      instance_norm: normalise each channel of each example by its own measured samples (after mean and std).
      coordinates: numbers of the channels that become Fourier features, such as latitude and longitude in degrees;
        they are not normalised.
      wavelengths: the longest and the shortest of these features, in the coordinates' unit.
      num_wavelengths: how many there are.
      posemb: of a patch's place in time, 'learned' or 'sincos'.
      pool: 'first' puts a class token before the patches; see layers.pooling.
      activation, dropout, drop_path, scan, remat, dtype: as in layers.transformer.

    Raises:
      UserError: values that are not [B, T, C] with mask [B, T], mean or std not of C channels, settings that do not go
        together.

    References:
      Nie et al., A Time Series is Worth 64 Words (PatchTST), 2023.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    stride: int | None = None
    channels: str = "separate"
    stem: tuple[int, ...] = ()
    stem_kernel: int = 7
    stem_dilation: int = 1
    spectrogram: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    instance_norm: bool = False
    coordinates: tuple[int, ...] = ()
    wavelengths: tuple[float, float] = (360.0, 1e-3)
    num_wavelengths: int = 16
    posemb: str = "learned"
    pool: str = "mean"
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        self._check(stream)
        measured = stream.mask[..., None] & jnp.isfinite(stream.values)  # [B, T, C]
        values = jnp.where(measured, stream.values, 0).astype(jnp.float32)
        x, mask = self._tokens(values, measured)  # [B, R, P, D], [B, R, P]
        x = einops.rearrange(self._place(x), "b r p d -> b (r p) d")  # [B, N, D]
        mask = einops.rearrange(mask, "b r p -> b (r p)")  # [B, N]
        if self.pool == "first":
            x, mask = class_token(self, x, mask)  # [B, 1 + N, D], [B, 1 + N]
        x = constrain_batch(dropout(x, self.dropout, fold(rng, 0)))
        x = transformer_of(self)(x, mask, fold(rng, 1))
        x = layer_norm("norm", x, self.dtype)
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, self.activation, dtype=self.dtype, name="pool")
        return Tokens(x, mask, pool(x, mask))

    def _check(self, stream: Stream) -> None:
        shape = tuple(stream.values.shape)
        if len(shape) != 3 or tuple(stream.mask.shape) != shape[:2]:
            raise UserError(
                "series: expected values [batch, samples, channels] and a mask [batch, samples], got "
                f"{shape} and {tuple(stream.mask.shape)}."
            )
        channels = shape[-1]
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != channels:
                raise UserError(f"series: {name} has {len(given)} values, but there are {channels} channels.")
        if self.std is not None and min(self.std) <= 0:
            raise UserError(f"series: std={self.std} must be positive.")
        if any(not 0 <= number < channels for number in self.coordinates):
            raise UserError(f"series: coordinates={self.coordinates} must be numbers below the {channels} channels.")
        one_of(self.channels, ("separate", "joint"), "channels")
        one_of(self.posemb, ("learned", "sincos"), "posemb")
        at_least(1, "series", patch_size=self.patch_size, stride=self.stride)
        if (self.stride or 1) > self.patch_size:
            raise UserError(f"series: stride={self.stride} would skip samples; patch_size is {self.patch_size}.")
        if self.spectrogram and (self.stem or self.coordinates):
            raise UserError("series: the spectrogram is of the samples; leave stem and coordinates empty with it.")

    def _tokens(self, values: jax.Array, measured: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns tokens [B, R, P, D] of R rows (the channels, or one of them all), and which were measured."""
        coordinates = np.array(self.coordinates, int)
        others = np.setdiff1d(np.arange(values.shape[-1]), coordinates)
        parts = {}  # name -> values [B, T, C', F], numbers of their channels
        if others.size:
            parts["samples"] = self._normalise(values, measured)[..., others, None], others
        if coordinates.size:
            scales = geometric_wavelengths(*self.wavelengths, self.num_wavelengths)
            features = fourier_features(values[..., coordinates], scales)  # [B, T, C', 2 W]
            parts["coordinates"] = jnp.where(measured[..., coordinates, None], features, 0.0), coordinates
        if self.channels == "joint":
            features = [einops.rearrange(part, "b t c f -> b 1 t (c f)") for part, _ in parts.values()]
            return self._embed("samples", jnp.concatenate(features, axis=-1), measured[:, None])
        rows = [
            self._embed(name, jnp.moveaxis(part, 2, 1), jnp.moveaxis(measured[..., numbers], 2, 1)[..., None])
            for name, (part, numbers) in parts.items()
        ]
        order = np.argsort(np.concatenate([numbers for _, numbers in parts.values()]))
        x, mask = (jnp.concatenate(part, axis=1)[:, order] for part in zip(*rows, strict=True))
        return x, mask  # [B, C, P, D], [B, C, P]

    def _normalise(self, values: jax.Array, measured: jax.Array) -> jax.Array:
        mean, std = (None if given is None else jnp.asarray(given, jnp.float32) for given in (self.mean, self.std))
        values = values if mean is None else values - mean
        values = jnp.where(measured, values if std is None else values / std, 0.0)  # [B, T, C]
        return instance_norm(values, measured) if self.instance_norm else values

    def _embed(self, name: str, values: jax.Array, measured: jax.Array) -> tuple[jax.Array, jax.Array]:
        stride = self.stride or self.patch_size
        rows = SeriesTokens(**fields_of(self, SeriesTokens) | {"stride": stride}, name=name)
        return rows(values, measured)

    def _place(self, x: jax.Array) -> jax.Array:
        """Adds to tokens [B, R, P, D] where they are in time and, of several rows, which one they are in."""
        batch, rows, patches, width = x.shape
        if rows > 1:
            by_row = LearnedPositions(name="channel_positions")(einops.rearrange(x, "b r p d -> (b p) r d"))
            x = einops.rearrange(by_row, "(b p) r d -> b r p d", b=batch)
        if self.posemb == "sincos":
            return x + jnp.asarray(sincos_1d(np.arange(patches), width), x.dtype)
        by_time = LearnedPositions(name="positions")(einops.rearrange(x, "b r p d -> (b r) p d"))
        return einops.rearrange(by_time, "(b r) p d -> b r p d", b=batch)

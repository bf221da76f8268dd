"""Audio encoder: AST, a transformer over patches of a log-mel spectrogram."""

from __future__ import annotations

import dataclasses
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
from mmjax.layers.mel import AstMel, LogMel
from mmjax.layers.norm import layer_norm
from mmjax.layers.pooling import Pool, class_token
from mmjax.layers.posemb import LearnedPositions, sincos_2d
from mmjax.layers.spec_augment import SpecAugment
from mmjax.layers.transformer import transformer_of


class AudioEncoder(nn.Module):
    """Waveform [B, S], int16 or float32 in [-1, 1], with mask [B, S] -> Tokens [B, N, width].

    Patches are numbered from the start to the end and, at one time, from low to high. A patch that lies in padding
    altogether is masked. Frames are added until each is in a patch (they are 0, as padding is in AST); mel bands above
    the last whole patch are left out, as in AST.

    Attributes:
      width, depth, num_heads, mlp_dim: sizes; `encoders.image.vit_sizes` has the usual ones.
      patch_size: (time, frequency) of a patch, in frames and mel bands.
      stride: from one patch to the next, likewise; None is patch_size, (10, 10) is AST's overlap by 6.
      pool: 'first' puts a class token before the patches; see layers.pooling.
      posemb: 'learned' for recordings of one length, or 'sincos2d' for any.
      mel: the frontend.
      mean, std: of the log-mel of this frontend; the defaults are AudioSet's mean and, as AST divides by, twice its
        standard deviation. Another `mel` needs its own (0 and 1 leave Whisper's scale as it is).
      augment: SpecAugment in training.
      activation, dropout, drop_path, scan, remat, batch_parts, dtype: as in layers.transformer.

    Raises:
      UserError: values or a mask that are not [B, S], sizes that leave no patch, or a stride that skips something.

    References:
      Gong et al., AST: Audio Spectrogram Transformer, 2021, section 2.1.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    patch_size: tuple[int, int] = (16, 16)
    stride: tuple[int, int] | None = None
    pool: str = "mean"
    posemb: str = "sincos2d"
    mel: LogMel = dataclasses.field(default_factory=AstMel)
    mean: float = -4.2677393
    std: float = 9.1379948
    augment: SpecAugment = dataclasses.field(default_factory=SpecAugment)
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    batch_parts: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        x, mask = self.mel(stream.values, stream.mask)  # [B, F, M], [B, F]
        x = self.augment((x - self.mean) / self.std, mask, fold(rng, 0))
        x, mask = self._embed(x, mask)  # [B, N, D], [B, N]
        x = constrain_batch(dropout(x, self.dropout, fold(rng, 1)))
        x = transformer_of(self)(x, mask, fold(rng, 2))
        x = layer_norm("norm", x, self.dtype)
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, self.activation, dtype=self.dtype, name="pool")
        return Tokens(x, mask, pool(x, mask))

    def _embed(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        patches = SpectrogramPatches(
            self.patch_size,
            self.stride or self.patch_size,
            self.width,
            -self.mean / self.std,
            self.dtype,
            name="patches",
        )
        x, mask = patches(x, mask)  # [B, T, R, D], [B, T]
        one_of(self.posemb, ("learned", "sincos2d"), "posemb")
        times, bands = x.shape[1:3]
        mask = einops.repeat(mask, "b t -> b (t r)", r=bands)  # [B, N]
        x = einops.rearrange(x, "b t r d -> b (t r) d")  # [B, N, D]
        if self.posemb == "sincos2d":
            x = x + jnp.asarray(sincos_2d(times, bands, self.width), self.dtype)
        if self.pool == "first":
            x, mask = class_token(self, x, mask)  # [B, 1 + N, D], [B, 1 + N]
        return (LearnedPositions(name="positions")(x) if self.posemb == "learned" else x), mask


class SpectrogramPatches(nn.Module):
    """x [B, F, M] with mask [B, F] -> patches [B, T, R, width] at T times and R frequencies, and mask [B, T].

    Attributes:
      patch_size, stride: (time, frequency).
      width: D.
      fill: the value of the frames that are added at the end.
      dtype: compute dtype.
    """

    patch_size: tuple[int, int]
    stride: tuple[int, int]
    width: int
    fill: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        (frames, bands), (step, band_step) = self.patch_size, self.stride
        at_least(1, "audio", patch_frames=frames, patch_bands=bands, stride_frames=step, stride_bands=band_step)
        if step > frames or band_step > bands:
            raise UserError(f"audio: stride={self.stride} would skip frames or bands; patch_size is {self.patch_size}.")
        if x.shape[2] < bands:
            raise UserError(f"audio: {x.shape[2]} mel bands are less than one patch of {bands}.")
        times = 1 + max(-(-(x.shape[1] - frames) // step), 0)
        added = max((times - 1) * step + frames - x.shape[1], 0)
        x = jnp.pad(x, ((0, 0), (0, added), (0, 0)), constant_values=self.fill)
        mask = jnp.pad(mask, ((0, 0), (0, added)))
        rows = np.arange(times)[:, None] * step + np.arange(frames)  # [T, P]
        columns = np.arange(1 + (x.shape[2] - bands) // band_step)[:, None] * band_step + np.arange(bands)  # [R, Q]
        x = einops.rearrange(x[:, rows][..., columns], "b t p r q -> b t r (p q)")  # [B, T, R, P * Q]
        x = nn.Dense(self.width, dtype=self.dtype, name="embedding")(x.astype(self.dtype))  # [B, T, R, D]
        return x, mask[:, rows].any(axis=2)

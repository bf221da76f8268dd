"""Video encoder: tubelets of a clip through joint, factorised or divided space-time attention, or frame by frame."""

from __future__ import annotations

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.dropout import fold, keep_tokens
from mmjax.layers.norm import layer_norm
from mmjax.layers.pooling import Pool, class_token
from mmjax.layers.posemb import LearnedPositions, sincos_1d, sincos_2d
from mmjax.layers.space_time import DividedTransformer
from mmjax.layers.stack import fields_of
from mmjax.layers.transformer import Transformer
from mmjax.layers.tubelet import TubeletEmbedding, tubelet_mask

ATTENTIONS = ("joint", "factorised", "divided", "frames")
POSITIONS = ("learned", "sincos")


class VideoEncoder(nn.Module):
    """uint8 pixels [B, T, H, W, 3] with mask [B, T] (False: padding) -> Tokens [B, L, width].

    With S = T / tubelet_size times of N patches each, tokens are the S * N tubelets ('joint', 'divided') or the S
    times, each the mean of its patches ('factorised', 'frames').

    Attributes:
      patch_size, width, depth, num_heads, mlp_dim: sizes; `encoders.image.vit_sizes` has those of ViT.
      tubelet_size: frames of a tubelet.
      attention: 'joint': every tubelet sees all others (ViViT, model 1); 'factorised': a transformer over the patches
        of each time, then one over the times (ViViT, model 2); 'divided': each block attends along time, then across
        the frame (TimeSformer); 'frames': each frame by itself and the mean of them, which knows no order, as a
        baseline.
      temporal_depth: blocks over the times of 'factorised'.
      pool: see layers.pooling; 'first' puts a class token before the tokens of the last transformer, and is for
        'joint' and 'factorised'.
      posemb: positions of the patches, 'learned' or 'sincos'.
      temporal_posemb: positions of the times, 'learned' or 'sincos'.
      tube_masking: share of the patches left out of each example in training, the same at all times (VideoMAE).
      mean, std: per channel, of pixels in [0, 1]; normalised here, on the device.
      activation, dropout, drop_path, scan, remat, dtype: as in layers.transformer; 'factorised' and 'frames' draw
        noise for each time.

    Raises:
      UserError: values that are not [B, T, H, W, 3] with mask [B, T], sides that the tubelets do not divide, or
        settings that do not fit together.

    References:
      Arnab et al., ViViT: A Video Vision Transformer, 2021, section 3; Bertasius et al., TimeSformer, 2021, section 3;
      Tong et al., VideoMAE, 2022, section 3.2.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    tubelet_size: int = 2
    attention: str = "joint"
    temporal_depth: int = 4
    pool: str = "mean"
    posemb: str = "learned"
    temporal_posemb: str = "learned"
    tube_masking: float = 0.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        self._check(stream)
        embed = TubeletEmbedding(self.tubelet_size, self.patch_size, self.width, self.dtype, name="patches")
        x = self._positions(embed(self._normalise(stream)), stream.values.shape[2:4])  # [B, S, N, D]
        mask = tubelet_mask(stream.mask, self.tubelet_size)  # [B, S]
        if rng is not None and self.tube_masking > 0:
            x = self._mask_tubes(x, fold(rng, 0))  # [B, S, K, D]
        x, mask = getattr(self, f"_{self.attention}")(constrain_batch(x), mask, fold(rng, 1))  # [B, L, D], [B, L]
        x = layer_norm("norm", x, self.dtype)
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, self.activation, dtype=self.dtype, name="pool")
        return Tokens(x, mask, pool(x, mask))

    def _check(self, stream: Stream) -> None:
        shape = tuple(stream.values.shape)
        if len(shape) != 5 or shape[-1] != 3 or tuple(stream.mask.shape) != shape[:2]:
            raise UserError(
                "video: expected values [batch, time, height, width, 3] and a mask [batch, time], got "
                f"{shape} and {tuple(stream.mask.shape)}."
            )
        one_of(self.attention, ATTENTIONS, "attention")
        one_of(self.posemb, POSITIONS, "posemb")
        one_of(self.temporal_posemb, POSITIONS, "temporal_posemb")
        if self.attention == "frames" and self.tubelet_size != 1:
            raise UserError(
                f"video: attention 'frames' looks at each frame by itself, which needs tubelet_size=1, not "
                f"{self.tubelet_size}."
            )
        if self.pool == "first" and self.attention in ("divided", "frames"):
            raise UserError(f"video: attention {self.attention!r} has no class token, which pool 'first' needs.")
        if not 0 <= self.tube_masking < 1:
            raise UserError(f"video: tube_masking={self.tube_masking} must be a share of at least 0 and below 1.")

    def _normalise(self, stream: Stream) -> jax.Array:
        mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
        pixels = (stream.values.astype(jnp.float32) / 255.0 - mean) / std  # [B, T, H, W, 3]
        return jnp.where(stream.mask[:, :, None, None, None], pixels, 0.0).astype(self.dtype)

    def _positions(self, x: jax.Array, pixels: tuple[int, int]) -> jax.Array:
        times, patches, width = x.shape[1:]
        if self.posemb == "sincos":
            rows, columns = (side // self.patch_size for side in pixels)
            x = x + jnp.asarray(sincos_2d(rows, columns, width), x.dtype)
        else:
            x = LearnedPositions(name="positions")(x.reshape(-1, patches, width)).reshape(x.shape)
        if self.attention == "frames":
            return x
        if self.temporal_posemb == "sincos":
            table = jnp.asarray(sincos_1d(np.arange(times), width), x.dtype)  # [S, D]
        else:
            table = LearnedPositions(name="times")(jnp.zeros((1, times, width), x.dtype))[0]  # [S, D]
        return x + table[:, None]  # [B, S, N, D]

    def _mask_tubes(self, x: jax.Array, rng: jax.Array) -> jax.Array:
        patches = x.shape[2]
        kept = keep_tokens(patches, max(1, round(patches * (1 - self.tube_masking))), rng)  # [B, K]
        return jnp.take_along_axis(x, kept[:, None, :, None], axis=2)  # [B, S, K, D]

    def _blocks(self, cls: type[nn.Module], name: str, depth: int) -> nn.Module:
        return cls(**fields_of(self, cls) | {"depth": depth}, name=name)

    def _joint(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        mask = einops.repeat(mask, "b s -> b (s n)", n=x.shape[2])  # [B, S * N]
        return self._sequence("transformer", self.depth, einops.rearrange(x, "b s n d -> b (s n) d"), mask, rng)

    def _factorised(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        x, mask = self._frames(x, mask, fold(rng, 0))  # [B, S, D]
        return self._sequence("temporal", self.temporal_depth, x, mask, fold(rng, 1))

    def _divided(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        x = self._blocks(DividedTransformer, "transformer", self.depth)(x, mask, rng)  # [B, S, N, D]
        mask = einops.repeat(mask, "b s -> b (s n)", n=x.shape[2])  # [B, S * N]
        return einops.rearrange(x, "b s n d -> b (s n) d"), mask

    def _frames(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Each time by itself: a transformer over its patches, then their mean, [B, S, D]."""
        times = x.shape[1]
        if rng is not None:
            rng = jax.vmap(lambda key: jax.random.split(key, times))(rng).reshape(-1)  # [B * S]
        x = einops.rearrange(x, "b s n d -> (b s) n d")
        x = self._blocks(Transformer, "transformer", self.depth)(x, None, rng)  # [B * S, N, D]
        x = x.mean(axis=1, dtype=jnp.float32).astype(self.dtype)  # [B * S, D]
        return einops.rearrange(x, "(b s) d -> b s d", s=times), mask

    def _sequence(
        self, name: str, depth: int, x: jax.Array, mask: jax.Array, rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        if self.pool == "first":
            x, mask = class_token(self, x, mask)  # [B, 1 + L, D], [B, 1 + L]
        return self._blocks(Transformer, name, depth)(x, mask, rng), mask

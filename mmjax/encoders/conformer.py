"""Conformer encoder: log-mel frames, two strided convolutions, Conformer blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.conformer import Conformer
from mmjax.layers.dropout import dropout, fold
from mmjax.layers.mel import LogMel
from mmjax.layers.pooling import Pool
from mmjax.layers.spec_augment import SpecAugment
from mmjax.layers.stack import fields_of

CONFORMER_SIZES = {
    "S": {"width": 144, "depth": 16, "num_heads": 4, "mlp_dim": 576},
    "M": {"width": 256, "depth": 16, "num_heads": 4, "mlp_dim": 1024},
    "L": {"width": 512, "depth": 17, "num_heads": 8, "mlp_dim": 2048},
}
"""Width, depth, heads and MLP width by name (Gulati et al. 2020, table 1, whose kernel of 32 taps is 31 here)."""


def conformer_sizes(variant: str) -> dict[str, int]:
    """Returns the sizes of a variant ('S', 'M' or 'L') as keyword arguments of ConformerEncoder.

    Raises:
      UserError: an unknown variant.
    """
    one_of(variant, CONFORMER_SIZES, "Conformer variant")
    return dict(CONFORMER_SIZES[variant])


class ConformerEncoder(nn.Module):
    """Waveform [B, S], int16 or float32 in [-1, 1], with mask [B, S] -> Tokens [B, ceil(F / 4), width] of F frames.

    A token covers four frames (40 ms with the defaults) and is valid where the first of them is. Positions are
    rotary, so a recording may have any length.

    Attributes:
      width, depth, num_heads, mlp_dim: sizes; see `conformer_sizes`.
      kernel_size: taps of the depthwise convolutions, in tokens; the paper's 32 cannot be centred, 31 is.
      stem_channels: of the two strided convolutions over time and frequency.
      pool: as in layers.pooling; there is no class token, so 'first' is the first 40 ms.
      mel: the frontend.
      mean, std: of the log-mel; it is normalised here. The defaults leave Whisper's scale as it is.
      augment: SpecAugment in training.
      dropout, drop_path, scan, remat, dtype: as in layers.conformer.

    Raises:
      UserError: values or a mask that are not [B, S].

    References:
      Gulati et al., Conformer: Convolution-augmented Transformer for Speech Recognition, 2020, section 2.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    kernel_size: int = 31
    stem_channels: int = 128
    pool: str = "mean"
    mel: LogMel = dataclasses.field(default_factory=LogMel)
    mean: float = 0.0
    std: float = 1.0
    augment: SpecAugment = dataclasses.field(default_factory=SpecAugment)
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        x, mask = self.mel(stream.values, stream.mask)  # [B, F, M], [B, F]
        x = self.augment((x - self.mean) / self.std, mask, fold(rng, 0))
        x, mask = Subsampling(self.stem_channels, self.width, self.dtype, name="stem")(x, mask)  # [B, N, D], [B, N]
        x = constrain_batch(dropout(x, self.dropout, fold(rng, 1)))
        x = Conformer(**fields_of(self, Conformer), name="conformer")(x, mask, fold(rng, 2))
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, dtype=self.dtype, name="pool")
        return Tokens(x, mask, pool(x, mask))


class Subsampling(nn.Module):
    """x [B, F, M] with mask [B, F] -> tokens [B, ceil(F / 4), width] and their mask, by two convolutions of stride 2.

    Masked frames are zero before each convolution. Its output t is centred on its input 2 t and is valid where that
    is, whatever F is.

    Attributes:
      channels: of the convolutions.
      width: D of the tokens.
      dtype: compute dtype.
    """

    channels: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = x[..., None].astype(self.dtype)  # [B, F, M, 1]
        for name in ("first", "up"):
            x = jnp.where(mask[:, :, None, None], x, 0)
            sides = ((1, 1), (1, 1))
            x = nn.relu(nn.Conv(self.channels, (3, 3), 2, padding=sides, dtype=self.dtype, name=name)(x))
            mask = mask[:, ::2]  # [B, F / 2], then [B, F / 4]
        x = x.reshape(*x.shape[:2], -1)  # [B, F / 4, M / 4 * C]
        return nn.Dense(self.width, dtype=self.dtype, name="down")(x), mask  # [B, N, D]

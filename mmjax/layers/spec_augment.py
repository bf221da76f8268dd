"""SpecAugment: stripes of time and of frequency are hidden from each training example."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least
from mmjax.layers.dropout import fold


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Time and frequency masks over x [B, F, M]; a masked value becomes the example's mean. No time warping.

    The widths are drawn uniformly from 0 to the greatest, then the place; the policy LD of the paper is two masks of
    each kind, widths 100 and 27. The defaults mask nothing.

    Attributes:
      time_masks: how many stripes of time.
      time_width: the widest, in frames.
      frequency_masks: how many stripes of frequency.
      frequency_width: the widest, in mel bands.
      max_share: of an example's frames that one stripe of time may cover (p of the paper).

    Raises:
      UserError: a negative number, or a share outside of 0 to 1.

    References:
      Park et al., SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition, 2019, section 2.
    """

    time_masks: int = 0
    time_width: int = 100
    frequency_masks: int = 0
    frequency_width: int = 27
    max_share: float = 1.0

    def __post_init__(self) -> None:
        at_least(0, "SpecAugment", **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if self.max_share > 1:
            raise UserError(f"SpecAugment.max_share={self.max_share} is a share of the frames, at most 1.")

    def __call__(self, x: jax.Array, mask: jax.Array, rng: jax.Array | None) -> jax.Array:
        """Returns x [B, F, M] with stripes of its valid frames (mask [B, F]) hidden; rng [B] keys, None for none."""
        if rng is None or self.time_masks + self.frequency_masks == 0:
            return x
        position = jnp.cumsum(mask, axis=1) - 1  # [B, F]
        frames = mask.sum(axis=1)  # [B]
        widest = jnp.minimum(self.time_width, jnp.floor(self.max_share * frames)).astype(jnp.int32)
        time = _stripes(self.time_masks, widest, frames, position, fold(rng, 0))  # [B, F]
        bands = jnp.full_like(frames, x.shape[2])
        band = jnp.broadcast_to(jnp.arange(x.shape[2]), (x.shape[0], x.shape[2]))  # [B, M]
        widest = jnp.minimum(self.frequency_width, bands)
        frequency = _stripes(self.frequency_masks, widest, bands, band, fold(rng, 1))  # [B, M]
        hidden = (time[:, :, None] | frequency[:, None, :]) & mask[:, :, None]  # [B, F, M]
        total = jnp.sum(jnp.where(mask[..., None], x, 0.0), axis=(1, 2), keepdims=True)  # [B, 1, 1]
        return jnp.where(hidden, total / jnp.maximum(frames * x.shape[2], 1)[:, None, None], x)


def _stripes(count: int, widest: jax.Array, length: jax.Array, position: jax.Array, rng: jax.Array) -> jax.Array:
    """Returns [B, N] bool: which position [B, N] lies in one of `count` stripes within [0, length [B])."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, (2, count)))(rng)  # [B, 2, count]
    width = jnp.floor(noise[:, 0] * (widest[:, None] + 1)).astype(jnp.int32)  # [B, count]
    start = jnp.floor(noise[:, 1] * (length[:, None] - width + 1)).astype(jnp.int32)  # [B, count]
    after = position[:, :, None] >= start[:, None, :]  # [B, N, count]
    return (after & (position[:, :, None] < (start + width)[:, None, :])).any(axis=2)  # [B, N]

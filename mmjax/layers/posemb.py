"""Position embeddings: learned, sin-cos in one or two dimensions, rotary."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError


class LearnedPositions(nn.Module):
    """Adds a learned [N, D] table to x [B, N, D].

    Attributes:
      init_scale: standard deviation of the initial values.
      length: rows of the table, of which x takes the first N; None: N.

    Raises:
      UserError: x of another N or D than the table was made for, or longer than it.
    """

    init_scale: float = 0.02
    length: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.length or x.shape[1], x.shape[2])
        if x.shape[1] > shape[0]:
            raise UserError(f"{self.name}: {x.shape[1]} positions came, but the table is made for {shape[0]} at most.")
        if self.has_variable("params", "table"):
            made, given = jnp.shape(self.get_variable("params", "table")), shape
            if made != given:
                raise UserError(
                    f"{self.name}: the learned table is of {made[0]} positions of width {made[1]}, but {given[0]} of "
                    f"width {given[1]} came; positions that are computed ('sincos', 'sincos2d', 'rotary') may be many."
                )
        table = self.param("table", nn.initializers.normal(self.init_scale), shape, jnp.float32)  # [length, D]
        return x + table[: x.shape[1]].astype(x.dtype)


def sincos_1d(positions: np.ndarray, width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Returns [N, width] float32: sines then cosines of positions [N] at geometric frequencies.

    Raises:
      UserError: width is odd.

    References:
      Vaswani et al., Attention Is All You Need, 2017, section 3.5.
    """
    if width % 2:
        raise UserError(f"sin-cos positions need an even width, got {width}.")
    frequencies = temperature ** (-np.arange(width // 2) / (width / 2))  # [width / 2]
    angles = positions[:, None] * frequencies  # [N, width / 2]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def sincos_2d(height: int, width: int, dim: int) -> np.ndarray:
    """Returns [height * width, dim] float32: half the channels for the column, half for the row.

    Raises:
      UserError: dim is not a multiple of 4.

    References:
      Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers (MoCo v3), 2021.
    """
    if dim % 4:
        raise UserError(f"2-D sin-cos positions need a width that is a multiple of 4, got {dim}.")
    row, column = np.divmod(np.arange(height * width), width)
    return np.concatenate([sincos_1d(column, dim // 2), sincos_1d(row, dim // 2)], axis=1)


def rotary(x: jax.Array, positions: jax.Array, temperature: float = 10_000.0) -> jax.Array:
    """Rotates pairs of channels of x [B, N, H, Dh] by angles that grow with positions [N] or [B, N].

    References:
      Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, equation 34.
    """
    half = x.shape[-1] // 2
    frequencies = temperature ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None].astype(jnp.float32) * frequencies  # [(B,) N, Dh / 2]
    sin, cos = jnp.sin(angles)[..., None, :], jnp.cos(angles)[..., None, :]  # [(B,) N, 1, Dh / 2]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)

"""The parts of an input, which can be left out one by one: patches of a picture, runs of a sequence.

How a stream is cut follows from its shape. One with a sequence axis (its mask has several positions: tokens, samples,
frames, points) is cut into runs of it, which are masked. One without is a picture, cut into a square grid, whose cells
take the picture's mean colour. Without any of its parts a modality says nothing, and is still there: a flat picture, a
sequence of one position whose value is 0.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.types import Array, Stream


def count_parts(stream: Stream, most: int) -> int:
    """Returns how many parts a stream is cut into, at most `most`: a square number, where it is a picture.

    Raises:
      UserError: a stream that is neither a sequence nor a picture [B, H, W, C], or `most` below 1.
    """
    if most < 1:
        raise UserError(f"parts: {most} parts of a modality must be at least 1.")
    if stream.mask.shape[1] > 1:
        return min(most, stream.mask.shape[1])
    if stream.values.ndim != 4:
        raise UserError(
            "parts: expected a sequence (a mask of several positions) or pictures [B, H, W, C], got values "
            f"{tuple(stream.values.shape)} with mask {tuple(stream.mask.shape)}."
        )
    return min(math.isqrt(most), *stream.values.shape[1:3]) ** 2


def existing(stream: Stream, count: int) -> jax.Array:
    """Returns [B, count] bool: the parts that have anything in them."""
    if stream.mask.shape[1] == 1:
        return jnp.broadcast_to(stream.mask, (len(stream.mask), count))
    part = _part_of(stream.mask.shape[1], count)  # [T]
    return (stream.mask[:, :, None] & (part[:, None] == np.arange(count))).any(axis=1)


def keep_parts(stream: Stream, keep: Array) -> Stream:
    """Returns the stream with only the parts of `keep` [B, P] bool; all shapes stay, and so does what is missing."""
    keep = jnp.asarray(keep, bool)
    if stream.mask.shape[1] > 1:
        kept = keep[:, _part_of(stream.mask.shape[1], keep.shape[1])]  # [B, T]
        there = kept.reshape(*kept.shape, *(1,) * (stream.values.ndim - 2))
        values = jnp.where(there, stream.values, jnp.zeros((), stream.values.dtype))
        mask = stream.mask & kept
        first = stream.mask & (jnp.cumsum(stream.mask, axis=1) == 1)
        return stream.replace(values=values, mask=jnp.where(mask.any(axis=1, keepdims=True), mask, first))
    side = math.isqrt(keep.shape[1])
    rows, columns = (_part_of(size, side) for size in stream.values.shape[1:3])
    kept = keep.reshape(-1, side, side)[:, rows][:, :, columns][..., None]  # [B, H, W, 1]
    mean = jnp.mean(jnp.asarray(stream.values, jnp.float32), axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
    return stream.replace(values=jnp.where(kept, stream.values, mean.astype(stream.values.dtype)))


def _part_of(size: int, count: int) -> np.ndarray:
    """Returns [size] int: which of `count` runs, as equal as can be, each position is in."""
    return np.arange(size) * count // size

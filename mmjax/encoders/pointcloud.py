"""Point cloud encoder: groups of near points through a small PointNet each, then a transformer over the groups."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, at_least, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.dropout import dropout, fold
from mmjax.layers.norm import layer_norm
from mmjax.layers.pointnet import CentrePositions, GroupEncoder
from mmjax.layers.points import farthest_points, gather_points, nearest_points
from mmjax.layers.pooling import Pool, class_token
from mmjax.layers.transformer import transformer_of

NORMALISE = ("unit_sphere", "none")


class PointCloudEncoder(nn.Module):
    """float32 points [B, P, F] with mask [B, P] -> Tokens [B, G, width], independent of the order of the points.

    F counts x, y and z in metres, then what else was measured (intensity, velocity, ...). Centres are picked by
    farthest-point sampling; a group is a centre and its nearest points, relative to it. Where there are fewer places
    than groups, the tokens left over are masked. A point with a coordinate that is not finite counts as padding,
    another feature that is not finite as 0.

    Attributes:
      num_features: F.
      num_groups, group_size: G tokens, each of K points; groups may overlap.
      width, depth, num_heads, mlp_dim: sizes of the transformer.
      group_hidden: widths inside the PointNet of a group; see GroupEncoder.
      normalise: 'unit_sphere' moves each cloud's mean to 0 and its farthest point to distance 1, which forgets size and
        place; 'none' keeps coordinates as they are, over `unit`.
      unit: metres that count as 1 where normalise is 'none'.
      radius: of a group, after normalising: points beyond it are left out and relative coordinates are divided by it.
      pool: 'mean', 'attention', 'none', or 'first', which puts a class token before the groups; see layers.pooling.
      activation, dropout, drop_path, scan, remat, dtype: as in layers.transformer; 'full' recomputes groups too.

    Raises:
      UserError: values that are not [B, P, num_features] with mask [B, P], or a setting without sense.

    References:
      Yu et al., Point-BERT: Pre-training 3D Point Cloud Transformers with Masked Point Modeling, 2022, section 3.1.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    num_groups: int = 64
    group_size: int = 32
    num_features: int = 4
    group_hidden: tuple[int, int, int] = (128, 256, 512)
    normalise: str = "unit_sphere"
    unit: float = 1.0
    radius: float | None = None
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
        values, mask = finite_points(stream.values, stream.mask)
        points = self._normalised(values[..., :3], mask)  # [B, P, 3]
        x, mask = self._groups(points, values[..., 3:], mask)  # [B, G, D], [B, G]
        if self.pool == "first":
            x, mask = class_token(self, x, mask)  # [B, 1 + G, D], [B, 1 + G]
        x = constrain_batch(dropout(x, self.dropout, fold(rng, 0)))
        x = transformer_of(self)(x, mask, fold(rng, 1))
        x = layer_norm("norm", x, self.dtype)
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, self.activation, dtype=self.dtype, name="pool")
        return Tokens(x, mask, pool(x, mask))

    def _check(self, stream: Stream) -> None:
        shape = tuple(stream.values.shape)
        if len(shape) != 3 or shape[-1] != self.num_features or self.num_features < 3:
            raise UserError(
                f"pointcloud: expected values [batch, points, num_features={self.num_features}], which start with "
                f"x, y and z, got {shape}."
            )
        if tuple(stream.mask.shape) != shape[:2]:
            raise UserError(
                f"pointcloud: expected a mask [batch, points] = {shape[:2]}, got {tuple(stream.mask.shape)}."
            )
        at_least(1, "pointcloud", num_groups=self.num_groups, group_size=self.group_size)
        one_of(self.normalise, NORMALISE, "normalise")
        if self.unit <= 0 or (self.radius is not None and self.radius <= 0):
            raise UserError(f"pointcloud: unit={self.unit} and radius={self.radius} must be above 0.")

    def _normalised(self, points: jax.Array, mask: jax.Array) -> jax.Array:
        if self.normalise == "none":
            return points / self.unit
        centre = mean_where(points, mask[..., None], axis=1, keepdims=True)  # [B, 1, 3]
        points = jnp.where(mask[..., None], points - centre, 0.0)
        squares = jnp.max(jnp.sum(jnp.square(points), axis=-1), axis=1)  # [B]
        return points / jnp.sqrt(jnp.where(squares > 0, squares, 1.0))[:, None, None]

    def _groups(self, points: jax.Array, features: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the embeddings [B, G, D] of the groups and which of them exist [B, G]."""
        chosen, present = farthest_points(points, mask, self.num_groups)  # [B, G]
        centres = gather_points(points, chosen)  # [B, G, 3]
        near, inside = nearest_points(centres, points, mask, self.group_size, self.radius)  # [B, G, K]
        relative = (gather_points(points, near) - centres[:, :, None]) / (self.radius or 1.0)  # [B, G, K, 3]
        members = jnp.concatenate([relative, gather_points(features, near)], axis=-1)  # [B, G, K, F]
        inside = inside & present[..., None]
        members = jnp.where(inside[..., None], members, 0.0).astype(self.dtype)
        encoder = nn.remat(GroupEncoder) if self.remat == "full" else GroupEncoder
        x = encoder(self.group_hidden, self.width, self.activation, self.dtype, name="groups")(members, inside)
        return x + CentrePositions(self.width, self.activation, self.dtype, name="positions")(centres), present


def finite_points(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns values [B, P, F] float32 with 0 for what is masked or not finite, and the mask [B, P] of real points."""
    finite = jnp.isfinite(values)  # [B, P, F]
    mask = mask & finite[..., :3].all(axis=-1)  # [B, P]
    return jnp.where(mask[..., None] & finite, values, 0.0).astype(jnp.float32), mask

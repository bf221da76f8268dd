"""Point clouds: [N, F] of any number of points -> a fixed number of them, padded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, at_least
from mmjax.core.types import Stream
from mmjax.data.source import BadRecord, Record
from mmjax.data.transform import ArraySpec, get_column, spec_of, stack_padded


@dataclasses.dataclass(frozen=True)
class PointCloudTransform:
    """Points x, y, z in metres and other features -> float32 [num_points, features], padded at the end.

    Of more points, training takes a random subset and evaluation every n-th. A point whose coordinates are not finite
    or lie beyond max_range is dropped; another feature that is not finite becomes NaN, not measured. In training, in
    this order: subset, point dropout, rotation, scale, jitter, of x, y and z alone.

    Attributes:
      column: of the record, floats [N, features].
      num_points: P.
      features: F, x, y and z included.
      rotation: greatest angle about the z axis of the coordinates (the sensor's, in a sweep), in degrees either way.
      scale: least and greatest factor of all coordinates.
      jitter: standard deviation of the noise on each coordinate in metres; the noise ends at three of them.
      dropout: greatest share that is dropped, of the at most num_points points of the subset; each example draws its
        own share below it. One point stays.
      max_points: a record with more is a bad one.
      max_range: greatest absolute coordinate in metres.

    Raises:
      UserError: a setting without sense.

    References:
      Qi et al., PointNet++, 2017, section 3.3 (random input dropout); Qi et al., PointNet, 2017, section 5.1 (jitter).
    """

    column: str = "points"
    num_points: int = 1024
    features: int = 4
    rotation: float = 180.0
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    dropout: float = 0.0
    max_points: int = 10_000_000
    max_range: float = 1e6

    def __post_init__(self) -> None:
        at_least(1, "PointCloudTransform", num_points=self.num_points, max_points=self.max_points)
        at_least(3, "PointCloudTransform", features=self.features)
        at_least(0, "PointCloudTransform", rotation=self.rotation, jitter=self.jitter)
        if not 0 < self.scale[0] <= self.scale[1] or not 0 <= self.dropout < 1 or self.max_range <= 0:
            raise UserError(
                f"PointCloudTransform: scale={self.scale} must be two rising positive factors, "
                f"dropout={self.dropout} at least 0 and below 1, max_range={self.max_range} above 0."
            )

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [num_points, features] float32 and mask [num_points] bool."""
        return {"values": ((self.num_points, self.features), np.float32), "mask": ((self.num_points,), np.bool_)}

    def prepare(self, record: Record, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the points [<= num_points, features] float32."""
        points = self._usable(get_column(record, self.column))  # [N, F]
        if rng is None:
            return points[_strided(len(points), self.num_points)]
        kept = max(1, round(min(len(points), self.num_points) * (1 - rng.uniform(0, self.dropout))))
        points = points[rng.choice(len(points), kept, replace=False)]
        points[:, :3] = self._moved(points[:, :3], rng)
        return points

    def collate(self, prepared: Sequence[np.ndarray | None]) -> Stream:
        """Returns values [B, num_points, features], zeros past the last point, and mask [B, num_points]."""
        return stack_padded(prepared, self.out_spec())

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values."""
        return spec_of(self)

    def _usable(self, value: Any) -> np.ndarray:
        """Returns the points [N, F] float32 that can be used.

        Raises:
          BadRecord: not [N, F] numbers, too many, or none left.
        """
        try:
            points = np.asarray(value)
        except ValueError as error:  # lists of different lengths
            raise BadRecord("wrong_shape", f"expected points [N, {self.features}]: {error}") from None
        if points.ndim != 2 or points.shape[1] != self.features or points.dtype.kind not in "fiu":
            found = f"{points.dtype} {list(points.shape)}"
            raise BadRecord("wrong_shape", f"expected points [N, {self.features}] of numbers, found {found}.")
        if len(points) > self.max_points:
            raise BadRecord("absurd_size", f"{len(points):,} points; max_points is {self.max_points:,}.")
        real = (np.abs(points[:, :3]) <= self.max_range).all(axis=1)  # NaN is not
        if not real.any():
            what = f"none of the {len(points):,} points has usable coordinates" if len(points) else "there is no point"
            raise BadRecord("empty_cloud", f"{what}.")
        with np.errstate(over="ignore"):
            points = points[real].astype(np.float32)
        points[~np.isfinite(points)] = np.nan
        return points

    def _moved(self, xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns xyz [N, 3] rotated about z, scaled and jittered."""
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        sin, cos = np.sin(angle), np.cos(angle)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])  # of row vectors, counter-clockwise
        noise = rng.normal(size=xyz.shape).clip(-3, 3) * self.jitter
        return xyz @ turn * rng.uniform(*self.scale) + noise


def _strided(count: int, most: int) -> np.ndarray:
    """Returns at most `most` of `count` indices at even distances, in order."""
    return np.arange(count) if count <= most else np.arange(most) * count // most

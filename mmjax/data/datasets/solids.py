"""Solids of ten kinds by their signed distances, for the synthetic lidar: each stands around the origin, z up.

A distance here is exact or too small, never too large, which is what sphere tracing needs (Hart, Sphere Tracing, 1996).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray], np.ndarray]
"""Points [N, 3] in metres -> signed distances [N] in metres, negative inside."""


@dataclasses.dataclass(frozen=True)
class Solid:
    """One solid.

    Attributes:
      distance: see Distance.
      height: half its height in metres: z runs from -height to height.
      reach: radius in metres of a sphere around the origin that holds all of it.
    """

    distance: Distance
    height: float
    reach: float


def box(x: float, y: float, z: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Distance:
    """Returns a box of half sides x, y, z around `at`."""
    half, centre = np.array([x, y, z]), np.array(at)
    return lambda p: np.max(np.abs(p - centre) - half, axis=-1)


def _union(*parts: Distance) -> Distance:
    return lambda p: np.min([part(p) for part in parts], axis=0)


def _around(p: np.ndarray) -> np.ndarray:
    """Returns the distances [N] of points from the z axis."""
    return np.hypot(p[:, 0], p[:, 1])


def _slope(out: np.ndarray, z: np.ndarray, base: float, height: float) -> np.ndarray:
    """Returns the distance from what narrows from `base` at z = -height to a tip at z = height."""
    side = (2 * height * (out - base) + base * (z + height)) / np.hypot(2 * height, base)
    return np.maximum(side, -height - z)


def _sphere(rng: np.random.Generator) -> Solid:
    r = rng.uniform(0.5, 1.0)
    return Solid(lambda p: np.linalg.norm(p, axis=1) - r, r, r)


def _box(rng: np.random.Generator) -> Solid:
    x, y, z = rng.uniform(0.4, 1.0, 3)
    return Solid(box(x, y, z), z, np.hypot(np.hypot(x, y), z))


def _cylinder(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(0.35, 0.8), rng.uniform(0.5, 1.0)
    return Solid(lambda p: np.maximum(_around(p) - r, np.abs(p[:, 2]) - h), h, np.hypot(r, h))


def _cone(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.1)
    return Solid(lambda p: _slope(_around(p), p[:, 2], r, h), h, np.hypot(r, h))


def _pyramid(rng: np.random.Generator) -> Solid:
    r, h = rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.1)
    return Solid(lambda p: _slope(np.abs(p[:, :2]).max(axis=1), p[:, 2], r, h), h, np.hypot(2**0.5 * r, h))


def _torus(rng: np.random.Generator) -> Solid:
    """Returns a ring that stands on its edge."""
    r, tube = rng.uniform(0.6, 0.9), rng.uniform(0.12, 0.25)
    return Solid(lambda p: np.hypot(np.hypot(p[:, 0], p[:, 2]) - r, p[:, 1]) - tube, r + tube, r + tube)


def _capsule(rng: np.random.Generator) -> Solid:
    """Returns a rod with round ends, on end."""
    r, h = rng.uniform(0.25, 0.45), rng.uniform(0.4, 0.9)

    def distance(p: np.ndarray) -> np.ndarray:
        beyond = np.maximum(np.abs(p[:, 2]) - h, 0.0)
        return np.hypot(_around(p), beyond) - r

    return Solid(distance, r + h, r + h)


def _car(rng: np.random.Generator) -> Solid:
    """Returns a long low body with a shorter cabin on it."""
    x, y, low, high = rng.uniform(1.2, 1.8), rng.uniform(0.5, 0.7), rng.uniform(0.25, 0.35), rng.uniform(0.2, 0.3)
    body = box(x, y, low, (0, 0, -high))
    cabin = box(x * rng.uniform(0.35, 0.5), y * 0.9, high, (-x * rng.uniform(0.1, 0.3), 0, low))
    return Solid(_union(body, cabin), low + high, np.hypot(np.hypot(x, y), low + high))


def _cross(rng: np.random.Generator) -> Solid:
    """Returns a post with an arm across."""
    h, arm, t = rng.uniform(0.8, 1.1), rng.uniform(0.5, 0.9), rng.uniform(0.12, 0.2)
    across = box(arm, t, t, (0, 0, h * rng.uniform(0.1, 0.5)))
    return Solid(_union(box(t, t, h), across), h, np.hypot(h, arm + t))


def _table(rng: np.random.Generator) -> Solid:
    """Returns a plate on four legs."""
    x, y, h, t = rng.uniform(0.7, 1.2), rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.6), rng.uniform(0.05, 0.09)
    legs = [box(t, t, h, (i * (x - t), j * (y - t), 0)) for i in (-1, 1) for j in (-1, 1)]
    return Solid(_union(box(x, y, t, (0, 0, h - t)), *legs), h, np.hypot(np.hypot(x, y), h))


SOLIDS: dict[str, Callable[[np.random.Generator], Solid]] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": _pyramid,
    "torus": _torus,
    "capsule": _capsule,
    "car": _car,
    "cross": _cross,
    "table": _table,
}
"""Class -> what makes one of random size and aspect."""

"""One simulated lidar sweep: rays cast from a spinning sensor at a solid on the ground.

Nothing here was measured. Rays start where the sensor stands, so a sweep holds the side that it sees, sparser with
distance, with noise, lost returns and some ground, as real sweeps do.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.data.datasets.solids import SOLIDS, Distance, Solid

_POINTS = (50, 400)  # of a sweep
_ELEVATIONS = np.deg2rad(np.linspace(-24.0, 14.0, 32))  # of the rings
_STEP = np.deg2rad(0.8)  # of azimuth, between two firings


@dataclasses.dataclass(frozen=True)
class Sensor:
    """A spinning lidar on a pole, and how well it measures.

    Attributes:
      height: above the ground in metres.
      noise: standard deviation of a range in metres.
      lost: greatest share of returns that are lost at random; each sweep draws its own below it.
      ground: greatest share of the sweep's points that are ground; each sweep draws its own below it, 0 is none.
    """

    height: float = 1.6
    noise: float = 0.015
    lost: float = 0.3
    ground: float = 0.2


def sweep(name: str, rng: np.random.Generator, sensor: Sensor = Sensor()) -> np.ndarray:
    """Returns a sweep [N, 4] float32 over a random solid of this class, 50 <= N <= 400; draws until one has as many."""
    while True:
        solid = SOLIDS[name](rng)
        points = _measured(solid, rng, sensor)
        if _POINTS[0] <= len(points) <= _POINTS[1]:
            return points


def _measured(solid: Solid, rng: np.random.Generator, sensor: Sensor) -> np.ndarray:
    """Returns one sweep [N, 4] over the solid, which stands on the ground at a random place."""
    away, azimuth, yaw = rng.uniform(4.0, 10.0), rng.uniform(-np.pi, np.pi), rng.uniform(-np.pi, np.pi)
    centre = np.array([away * np.cos(azimuth), away * np.sin(azimuth), solid.height - sensor.height])
    span = float(np.linalg.norm(centre))
    turn = _turn(yaw) @ _lean(rng.uniform(0, np.deg2rad(10.0)), rng.uniform(-np.pi, np.pi))  # [3, 3] own -> sensor
    rays = _rays(azimuth, np.arctan2(solid.reach, away) * 1.3, rng)  # [R, 3]

    def distance(p: np.ndarray) -> np.ndarray:
        return solid.distance((p - centre) @ turn)

    ground = np.where(rays[:, 2] < 0, sensor.height / np.maximum(-rays[:, 2], 1e-9), np.inf)  # [R]
    ranges = cast(distance, rays, span - solid.reach, np.minimum(ground, span + solid.reach))  # [R], inf: a miss
    hit = np.isfinite(ranges)
    facing = incidence(distance, rays[hit], ranges[hit])  # [H]
    body = _returns(rays[hit], ranges[hit], rng.uniform(0.3, 1.0) * facing, rng, sensor)
    floor = ~hit & (np.abs(ground - away) < 2 * solid.reach)
    below = _returns(rays[floor], ground[floor], 0.3 * -rays[floor, 2], rng, sensor)
    share = rng.uniform(0, sensor.ground)
    below = below[rng.permutation(len(below))[: round(len(body) * share / (1 - share))]]
    return np.concatenate([body, below]).astype(np.float32)


def cast(distance: Distance, rays: np.ndarray, near: float, far: np.ndarray) -> np.ndarray:
    """Returns how far along unit rays [R, 3] from the origin the surface is [R], inf where a ray misses it.

    Args:
      distance: signed distance [N] of points [N, 3], exact or too small.
      rays: unit directions.
      near: where every ray starts, before the surface.
      far: [R] where each ray ends.

    References:
      Hart, Sphere Tracing: A Geometric Method for the Antialiased Ray Tracing of Implicit Surfaces, 1996.
    """
    ranges = np.full(len(rays), max(near, 0.0))
    found, active = np.full(len(rays), np.inf), np.arange(len(rays))
    for _ in range(96):
        step = distance(rays[active] * ranges[active, None])
        arrived = step < 1e-3
        found[active[arrived]] = ranges[active[arrived]]
        ranges[active] += step
        active = active[~arrived & (ranges[active] < far[active])]
        if not len(active):
            break
    return found


def incidence(distance: Distance, rays: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Returns the cosine [N] between the rays [N, 3] and the surface's normals where they meet it, at least 0."""
    at, small = rays * ranges[:, None], 1e-3 * np.eye(3)
    normal = np.stack([distance(at + step) - distance(at - step) for step in small], axis=-1)  # [N, 3]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return np.maximum(-np.sum(normal * rays, axis=1), 0.0)


def _rays(azimuth: float, half: float, rng: np.random.Generator) -> np.ndarray:
    """Returns the unit rays [R, 3] of every ring within `half` radians of an azimuth, firing by firing."""
    columns = np.arange(azimuth - half + rng.uniform(0, _STEP), azimuth + half, _STEP)
    a, e = (grid.ravel() for grid in np.meshgrid(columns, _ELEVATIONS, indexing="ij"))
    return np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)


def _returns(
    rays: np.ndarray, ranges: np.ndarray, strength: np.ndarray, rng: np.random.Generator, sensor: Sensor
) -> np.ndarray:
    """Returns what is measured [N, 4] of rays that meet something; strength [R] is the share that comes back."""
    kept = rng.random(len(rays)) >= rng.uniform(0, sensor.lost)
    kept &= rng.random(len(rays)) < 20 * strength  # a surface seen edge-on sends hardly anything back
    xyz = rays * (ranges + rng.normal(0, sensor.noise, len(rays)))[:, None]
    intensity = np.clip(strength + rng.normal(0, 0.02, len(rays)), 0, 1)
    return np.concatenate([xyz, intensity[:, None]], axis=1)[kept]


def _turn(angle: float) -> np.ndarray:
    """Returns the rotation [3, 3] about z."""
    sin, cos = np.sin(angle), np.cos(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _lean(angle: float, towards: float) -> np.ndarray:
    """Returns the rotation [3, 3] that leans what stands upright by `angle` towards an azimuth."""
    sin, cos = np.sin(angle), np.cos(angle)
    tip = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return _turn(towards) @ tip @ _turn(-towards)

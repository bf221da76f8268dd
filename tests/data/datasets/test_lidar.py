"""The synthetic lidar: solids and rays against formulas, sweeps by their geometry, the build and reading it back."""

import dataclasses

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.datasets import lidar, lidar_sweep
from mmjax.data.datasets.lidar import CLASSES
from mmjax.data.datasets.lidar_sweep import Sensor, cast, incidence, sweep
from mmjax.data.datasets.solids import SOLIDS, box

CLEAN = Sensor(noise=0.0, lost=0.0, ground=0.0)


def philox(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key))


@pytest.mark.parametrize("name", CLASSES)
def test_distances_are_never_too_large_and_bounds_hold_the_solid(name):
    rng = philox(1, 2)
    solid = SOLIDS[name](rng)
    a, b = rng.uniform(-2.5, 2.5, (2, 4000, 3))
    b = np.where(rng.random((4000, 1)) < 0.5, a + rng.normal(0, 0.05, (4000, 3)), b)
    change = np.abs(solid.distance(a) - solid.distance(b))
    assert (change <= np.linalg.norm(a - b, axis=1) + 1e-9).all()  # so no step of sphere tracing goes through
    a = a * 0.5
    inside = a[solid.distance(a) < 0]
    assert len(inside) > 10
    assert np.abs(inside[:, 2]).max() <= solid.height and np.linalg.norm(inside, axis=1).max() <= solid.reach + 1e-9


def test_rays_meet_a_sphere_where_the_formula_says():
    centre, radius = np.array([5.0, 1.0, -0.5]), 1.0
    rays = philox(0, 0).normal(size=(500, 3)) * 0.1 + [1.0, 0.2, -0.1]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    along = rays @ centre
    under = along**2 - (centre @ centre - radius**2)
    clear = np.abs(under) > 0.02  # rays that graze it may go either way
    found = cast(lambda p: np.linalg.norm(p - centre, axis=1) - radius, rays, 1.0, np.full(500, 20.0))
    expected = np.where(under > 0, along - np.sqrt(np.maximum(under, 0)), np.inf)
    assert 100 < (under[clear] > 0).sum() < clear.sum()
    np.testing.assert_allclose(found[clear], expected[clear], atol=0.01)
    hit = np.isfinite(found)
    normals = (rays[hit] * found[hit, None] - centre) / radius
    cosines = incidence(lambda p: np.linalg.norm(p - centre, axis=1) - radius, rays[hit], found[hit])
    np.testing.assert_allclose(cosines, np.maximum(-np.sum(normals * rays[hit], axis=1), 0), atol=0.01)


def test_a_ray_ends_at_what_stands_before():
    rays = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    wall = box(0.5, 0.5, 0.5, (4, 0, 0))
    np.testing.assert_allclose(cast(wall, rays, 0.0, np.array([9.0, 9.0])), [3.5, np.inf], atol=1e-3)
    np.testing.assert_array_equal(cast(wall, rays, 0.0, np.array([3.0, 9.0])), [np.inf, np.inf])


def test_a_clean_sweep_of_a_sphere_lies_on_its_near_side():
    points = sweep("sphere", philox(3, 0), CLEAN)[:, :3].astype(np.float64)
    system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    x, y, z, rest = np.linalg.lstsq(system, np.sum(points**2, axis=1), rcond=None)[0]
    centre, radius = np.array([x, y, z]), np.sqrt(rest + x * x + y * y + z * z)
    np.testing.assert_allclose(np.linalg.norm(points - centre, axis=1), radius, atol=0.01)
    assert 0.5 < radius < 1.0 and z == pytest.approx(radius - CLEAN.height, abs=0.02)  # it stands on the ground
    assert (np.sum((points - centre) * points, axis=1) < 0).all()  # facing the sensor


@pytest.mark.parametrize("name", CLASSES)
def test_sweeps_are_sparse_reproducible_and_above_the_ground(name):
    points = sweep(name, philox(0, 5))
    assert points.dtype == np.float32 and points.shape[1] == 4 and 50 <= len(points) <= 400
    assert np.isfinite(points).all() and points[:, 2].min() > -Sensor().height - 0.1
    assert points[:, 3].min() >= 0 and 0.1 < points[:, 3].max() <= 1
    np.testing.assert_array_equal(points, sweep(name, philox(0, 5)))
    assert len(points) != len(sweep(name, philox(1, 5))) or (points != sweep(name, philox(1, 5))).any()


def test_ground_noise_and_losses_can_be_turned_off(monkeypatch):
    monkeypatch.setattr(lidar_sweep, "_POINTS", (1, 10_000))
    clean = sweep("box", philox(0, 1), CLEAN)
    sparse = sweep("box", philox(0, 1), dataclasses.replace(CLEAN, lost=0.9))
    rough = sweep("box", philox(0, 1), dataclasses.replace(CLEAN, noise=0.1))
    floored = sweep("box", philox(0, 1), dataclasses.replace(CLEAN, ground=0.5))
    assert len(sparse) < len(clean) == len(rough) < len(floored)
    ranges = [np.linalg.norm(points[:, :3], axis=1) for points in (clean, rough)]
    assert np.std(ranges[1] - ranges[0]) == pytest.approx(0.1, rel=0.3)
    extra = floored[len(clean) :]
    np.testing.assert_allclose(extra[:, 2], -CLEAN.height, atol=1e-5)
    np.testing.assert_array_equal(floored[: len(clean)], clean)


def test_builds_and_reads_back(monkeypatch, tmp_path):
    monkeypatch.setattr(lidar, "SPLITS", {"train": 20, "test": 10})
    train = lidar.LidarSource("train", data_dir=str(tmp_path))
    test = lidar.LidarSource("test", data_dir=str(tmp_path))
    assert (len(train), len(test)) == (20, 10) and train.columns == ("points", "label")
    assert train.classes == {"label": list(CLASSES)}
    records = [source.read(index) for source in (train, test) for index in range(len(source))]
    assert sorted(r["label"][0] for r in records) == sorted(CLASSES * 3)
    expected = {sweep(CLASSES[i % 10], philox(0, i)).tobytes() for i in range(20)}
    assert {train.read(i)["points"].tobytes() for i in range(20)} == expected
    assert not expected & {test.read(i)["points"].tobytes() for i in range(10)}
    assert records[0]["points"].dtype == np.float32 and records[0]["points"].shape[1] == 4
    assert train.label(3) == "synthetic_lidar:train[3]"
    with pytest.raises(UserError, match="no split 'tset'"):
        lidar.LidarSource("tset", data_dir=str(tmp_path))

"""What the point cloud transform makes of a record: counts, augmentation by its geometry, bad records, its JSON."""

import dataclasses
import json

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.loading import example_rng
from mmjax.data.pointcloud import PointCloudTransform
from mmjax.data.source import BadRecord
from mmjax.data.transforms import transform_from_spec

STILL = PointCloudTransform(num_points=8, rotation=0.0)
POINTS = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


def rng(position: int) -> np.random.Generator:
    return example_rng(0, position, "points")


def rows(points) -> set[bytes]:
    return {row.tobytes() for row in np.ascontiguousarray(points)}


def test_evaluation_takes_points_at_even_distances_and_all_where_they_fit():
    np.testing.assert_array_equal(STILL.prepare({"points": POINTS}, None), POINTS[[0, 2, 5, 7, 10, 12, 15, 17]])
    np.testing.assert_array_equal(STILL.prepare({"points": POINTS[:5]}, None), POINTS[:5])


def test_training_takes_a_random_subset_without_doubles():
    found = [STILL.prepare({"points": POINTS}, rng(position)) for position in range(16)]
    assert all(len(rows(f)) == 8 and rows(f) <= rows(POINTS) for f in found)
    assert len(set.union(*map(rows, found))) == 20
    np.testing.assert_array_equal(STILL.prepare({"points": POINTS}, rng(3)), found[3])


def test_rotation_keeps_heights_distances_and_what_is_no_coordinate():
    transform = dataclasses.replace(STILL, num_points=20, rotation=30.0)
    angles = []
    for position in range(32):
        found = transform.prepare({"points": POINTS}, rng(position))
        found = found[np.argsort(found[:, 2])]
        plain = POINTS[np.argsort(POINTS[:, 2])]
        np.testing.assert_array_equal(found[:, 2:], plain[:, 2:])
        a, b = found[:, 0] + 1j * found[:, 1], plain[:, 0] + 1j * plain[:, 1]
        turn = a / b
        np.testing.assert_allclose(turn, turn[0], atol=1e-4)
        assert abs(turn[0]) == pytest.approx(1, abs=1e-5)
        angles.append(np.angle(turn[0], deg=True))
    assert -30 <= min(angles) < -15 and 15 < max(angles) <= 30


def test_scale_and_jitter_stay_within_their_bounds():
    scaled = dataclasses.replace(STILL, num_points=20, scale=(0.5, 2.0)).prepare({"points": POINTS}, rng(0))
    plain = dataclasses.replace(STILL, num_points=20).prepare({"points": POINTS}, rng(0))
    factors = scaled[:, :3] / plain[:, :3]
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-5)
    assert 0.5 <= factors[0, 0] <= 2.0 and factors[0, 0] != pytest.approx(1)
    jittered = dataclasses.replace(STILL, num_points=20, jitter=0.1).prepare({"points": POINTS}, rng(0))
    moved = np.abs(jittered - plain)
    assert 0.05 < moved[:, :3].mean() < 0.12 and moved.max() <= 0.3 + 1e-6 and (moved[:, 3] == 0).all()


def test_point_dropout_draws_its_share_and_leaves_one():
    transform = dataclasses.replace(STILL, num_points=20, dropout=0.9)
    counts = [len(transform.prepare({"points": POINTS}, rng(position))) for position in range(64)]
    assert min(counts) < 6 and max(counts) > 16 and min(counts) >= 2
    assert len(transform.prepare({"points": POINTS[:1]}, rng(0))) == 1


def test_point_dropout_acts_on_dense_clouds_as_on_thin_ones():
    transform = dataclasses.replace(STILL, dropout=0.8)
    dense = [len(transform.prepare({"points": POINTS}, rng(position))) for position in range(64)]
    assert dense == [len(transform.prepare({"points": POINTS[:8]}, rng(position))) for position in range(64)]
    assert set(dense) == set(range(2, 9))


def test_a_thin_clouds_draws_are_those_of_one_share_and_one_choice():
    for count in (1, 5, 20):
        chance = rng(count)
        kept = max(1, round(count * (1 - chance.uniform(0, 0.5))))
        expected = POINTS[chance.choice(count, kept, replace=False)]
        found = dataclasses.replace(STILL, num_points=20, dropout=0.5).prepare({"points": POINTS[:count]}, rng(count))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_streams_are_as_out_spec_says_and_missing_clouds_are_masked():
    stream = STILL.collate([STILL.prepare({"points": POINTS}, rng(0)), None, POINTS[:3]])
    for name, (shape, dtype) in STILL.out_spec().items():
        array = getattr(stream, name)
        assert array.shape == (3, *shape) and array.dtype == dtype
    assert stream.mask.sum(1).tolist() == [8, 0, 3] and (stream.values[~stream.mask] == 0).all()


def test_useless_points_are_dropped_and_useless_features_are_not_measured():
    points = POINTS[:8].copy()
    points[0, 0], points[1, 1], points[2, 2], points[3, 3], points[4, 3] = np.nan, np.inf, 1e9, np.inf, np.nan
    before = points.copy()
    found = STILL.prepare({"points": points}, None)
    np.testing.assert_array_equal(found[:, :3], points[3:, :3])
    assert np.isnan(found[:2, 3]).all() and np.isfinite(found[2:]).all()
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("value", [POINTS.astype(np.float64), POINTS.tolist(), (POINTS * 9).astype(np.int16)])
def test_any_numbers_will_do(value):
    found = STILL.prepare({"points": value}, None)
    assert found.dtype == np.float32 and found.shape == (8, 4)
    assert np.shares_memory(found, POINTS) is False


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "missing_value"),
        (np.zeros((0, 4), np.float32), "empty_cloud"),
        (np.full((3, 4), np.nan), "empty_cloud"),
        (POINTS[:, :3], "wrong_shape"),
        (POINTS.ravel(), "wrong_shape"),
        (np.array([["a"] * 4]), "wrong_shape"),
        ([[1.0, 2.0], [3.0]], "wrong_shape"),
        (np.zeros((21, 4)), "absurd_size"),
    ],
)
def test_bad_records(value, kind):
    with pytest.raises(BadRecord) as caught:
        dataclasses.replace(STILL, max_points=20).prepare({"points": value}, rng(0))
    assert caught.value.kind == kind


def test_the_spec_builds_the_same_transform():
    transform = dataclasses.replace(STILL, scale=(0.9, 1.1), dropout=0.5)
    assert transform_from_spec(json.loads(json.dumps(transform.spec()))) == transform


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_points": 0}, "num_points=0 must be at least 1"),
        ({"features": 2}, "features=2 must be at least 3"),
        ({"jitter": -1.0}, "jitter=-1.0 must be at least 0"),
        ({"scale": (1.1, 0.9)}, "two rising positive factors"),
        ({"dropout": 1.0}, "below 1"),
    ],
)
def test_wrong_settings_are_sentences(settings, message):
    with pytest.raises(UserError, match=message):
        PointCloudTransform(**settings)

"""Farthest points, neighbours, maxima and the PointNet of a group against plain numpy; masks and duplicates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.pointnet import CentrePositions, GroupEncoder
from mmjax.layers.points import farthest_points, gather_points, masked_max, nearest_points

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(4, 20, 3)).astype(np.float32)
MASK = np.arange(20) < np.array([[20], [13], [3], [0]])
COUNT = 6
FARTHEST = jax.jit(farthest_points, static_argnums=2)
NEAREST = jax.jit(nearest_points, static_argnums=(3, 4))


def farthest_by_hand(points, count):
    """Indices that farthest-point sampling picks of points [N, 3], one after the other."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(0), axis=1)))]
    while len(chosen) < min(count, len(points)):
        distances = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(1)
        chosen.append(int(np.argmax(distances)))
    return chosen


def test_farthest_points_are_those_of_the_definition():
    chosen, found = (np.asarray(x) for x in FARTHEST(POINTS, MASK, COUNT))
    assert chosen.shape == found.shape == (4, COUNT) and found.sum(1).tolist() == [6, 6, 3, 0]
    for row, size in enumerate((20, 13, 3)):
        assert chosen[row][found[row]].tolist() == farthest_by_hand(POINTS[row, :size].astype(np.float64), COUNT)
    assert (chosen[~found] == 0).all()


def test_what_is_masked_is_never_picked_and_changes_nothing():
    hidden = np.where(MASK[..., None], POINTS, np.float32(np.nan))
    for clean, dirty in zip(FARTHEST(POINTS, MASK, COUNT), FARTHEST(hidden, MASK, COUNT), strict=True):
        np.testing.assert_array_equal(clean, dirty)


def test_points_at_one_place_are_picked_once():
    twice = np.concatenate([POINTS[:1, :3]] * 4, axis=1)  # three places, four times each
    chosen, found = FARTHEST(np.pad(twice, ((0, 3), (0, 8), (0, 0))), np.arange(20) < np.full((4, 1), 12), COUNT)
    assert found[0].tolist() == [True] * 3 + [False] * 3
    assert len(np.unique(twice[0, chosen[0, :3]], axis=0)) == 3
    assert found[1].tolist() == [True] + [False] * 5  # all at the origin


@pytest.mark.parametrize("radius", [None, 1.0])
def test_neighbours_are_the_nearest_ones(radius):
    centres = POINTS[:, :2] + 0.1
    indices, inside = (np.asarray(x) for x in NEAREST(centres, POINTS, MASK, 5, radius))
    assert indices.shape == (4, 2, 5)
    for row, size in enumerate((20, 13, 3, 0)):
        for group in range(2):
            distances = np.linalg.norm(POINTS[row, :size].astype(np.float64) - centres[row, group], axis=1)
            order = [i for i in np.argsort(distances)[:5] if radius is None or distances[i] <= radius]
            assert indices[row, group][inside[row, group]].tolist() == order
            assert inside[row, group].sum() == len(order)


def test_no_more_neighbours_than_points():
    assert NEAREST(POINTS[:, :2], POINTS[:, :2], MASK[:, :2], 5, None)[0].shape == (4, 2, 2)


def test_gathering_takes_rows_of_the_own_example():
    indices = RNG.integers(0, 20, (4, 2, 5))
    found = gather_points(jnp.asarray(POINTS), jnp.asarray(indices))
    np.testing.assert_array_equal(found, POINTS[np.arange(4)[:, None, None], indices])


def test_masked_maximum_and_its_gradient():
    x = jnp.asarray([[-3.0, -1.0, 5.0], [2.0, 4.0, 6.0]])[..., None]  # [2, 3, 1]
    mask = jnp.asarray([[True, True, False], [False] * 3])
    np.testing.assert_array_equal(masked_max(x, mask), [[-1.0], [0.0]])
    gradient = jax.grad(lambda x: masked_max(x, mask).sum())(x)
    np.testing.assert_array_equal(gradient[..., 0], [[0, 1, 0], [0, 0, 0]])
    assert masked_max(x.astype(jnp.bfloat16), mask).dtype == jnp.bfloat16


def test_a_group_is_the_pointnet_of_the_paper():
    module, x = GroupEncoder((8, 16, 32), 16, "relu"), RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
    mask = np.array([[[True] * 4, [True, True, False, False]]])
    params = jax.jit(module.init)(jax.random.key(1), x, mask)
    found = jax.jit(module.apply)(params, x, mask)
    p = jax.tree.map(np.asarray, params["params"])

    def layer(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    def relu_norm(x):
        return np.maximum((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6), 0)

    for group, size in ((0, 4), (1, 2)):
        points = layer("features", relu_norm(layer("embedding", x[0, group, :size])))  # [K, 16]
        both = np.concatenate([np.tile(points.max(0), (size, 1)), points], axis=1)
        expected = layer("down", relu_norm(layer("up", both))).max(0)
        np.testing.assert_allclose(found[0, group], expected, atol=1e-5)


def test_bfloat16_positions_tell_near_centres_far_away_apart():
    near = jnp.asarray([[[70.0, 0, 0], [70.2, 0, 0]]])  # in bfloat16 both are 70
    assert (near.astype(jnp.bfloat16)[:, 0] == near.astype(jnp.bfloat16)[:, 1]).all()
    module = CentrePositions(16, dtype=jnp.bfloat16)
    params = module.init(jax.random.key(0), near)
    found = module.apply(params, near)
    assert found.dtype == jnp.bfloat16 and found.shape == (1, 2, 16)
    assert np.abs(np.asarray(found[0, 0] - found[0, 1], np.float32)).max() > 0.05


def test_wrong_inputs_are_sentences():
    with pytest.raises(UserError, match=r"expected points \[batch, points, 3\] and a mask .* got \(4, 20, 2\)"):
        farthest_points(jnp.asarray(POINTS[..., :2]), jnp.asarray(MASK), 3)
    with pytest.raises(UserError, match=r"farthest_points.count=0 must be at least 1"):
        farthest_points(jnp.asarray(POINTS), jnp.asarray(MASK), 0)
    with pytest.raises(UserError, match=r"nearest_points: expected .* and \(4, 19\)"):
        nearest_points(jnp.asarray(POINTS), jnp.asarray(POINTS), jnp.asarray(MASK[:, 1:]), 3)

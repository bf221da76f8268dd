"""The point cloud encoder: order, padding and place of the points do not count; damage and absence are harmless."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.encoders.pointcloud import PointCloudEncoder
from mmjax.layers.dropout import example_keys
from mmjax.training.sharding import DEFAULT_RULES

SIZES = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "group_hidden": (8, 16, 32)}
SIZES |= {"num_groups": 6, "group_size": 4}
RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(4, 24, 4)).astype(np.float32)
COUNTS = np.array([[24], [15], [3], [0]])  # full, padded, fewer points than groups, missing
CLOUD = Stream(VALUES, np.arange(24) < COUNTS)
PLAIN = PointCloudEncoder(**SIZES)
APPLY = jax.jit(PLAIN.apply)


@pytest.fixture(scope="module")
def params():
    return jax.jit(PLAIN.init)(jax.random.key(0), CLOUD)


def assert_same(a, b, atol=1e-5):
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_allclose(np.where(a.mask[..., None], a.x, 0), np.where(b.mask[..., None], b.x, 0), atol=atol)
    np.testing.assert_allclose(a.pooled, b.pooled, atol=atol)


def test_tokens_and_their_mask(params):
    found = APPLY(params, CLOUD)
    assert found.x.shape == (4, 6, 16) and found.pooled.shape == (4, 16) and found.x.dtype == jnp.float32
    assert found.mask.sum(1).tolist() == [6, 6, 3, 0]
    assert np.abs(found.pooled[0] - found.pooled[1]).max() > 1e-2


def test_the_order_of_points_does_not_count(params):
    order = np.stack([RNG.permutation(24) for _ in range(4)])
    shuffled = Stream(
        *(np.take_along_axis(x, order.reshape(4, 24, *[1] * (x.ndim - 2)), 1) for x in jax.tree.leaves(CLOUD))
    )
    assert shuffled.mask.sum(1).tolist() == [24, 15, 3, 0] and not (shuffled.mask == CLOUD.mask).all()
    assert_same(APPLY(params, shuffled), APPLY(params, CLOUD))


def test_padding_does_not_count(params):
    wider = Stream(np.pad(VALUES, ((0, 0), (0, 9), (0, 0)), constant_values=7.0), np.pad(CLOUD.mask, ((0, 0), (0, 9))))
    assert_same(APPLY(params, wider), APPLY(params, CLOUD), atol=1e-6)
    for garbage in (1e30, np.nan, np.inf):
        dirty = CLOUD.replace(values=np.where(CLOUD.mask[..., None], VALUES, np.float32(garbage)))
        for a, b in zip(jax.tree.leaves(APPLY(params, dirty)), jax.tree.leaves(APPLY(params, CLOUD)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_points_that_were_not_measured_are_padding_and_other_features_are_zero(params):
    values = VALUES.copy()
    values[0, 20:, 1], values[0, 3, 3] = np.nan, np.nan
    expected = VALUES.copy()
    expected[0, 3, 3] = 0.0
    mask = CLOUD.mask.copy()
    mask[0, 20:] = False
    assert_same(APPLY(params, Stream(values, CLOUD.mask)), APPLY(params, Stream(expected, mask)), atol=0)


def test_duplicates_make_no_further_groups(params):
    values = np.concatenate([VALUES[:, :3]] * 8, axis=1)  # three places, eight times each
    found = APPLY(params, Stream(values, np.ones((4, 24), bool)))
    assert found.mask.sum(1).tolist() == [3] * 4 and np.isfinite(found.x).all()
    single = np.repeat(VALUES[:, :1], 24, axis=1)
    assert np.isfinite(APPLY(params, Stream(single, np.ones((4, 24), bool))).x).all()


def test_unit_sphere_forgets_size_and_place_and_none_does_not(params):
    scale, shift = np.float32([3, 3, 3, 1]), np.float32([5, -7, 2, 0])
    moved = CLOUD.replace(values=VALUES * scale + shift)
    assert_same(APPLY(params, moved), APPLY(params, CLOUD))
    metres = jax.jit(PLAIN.clone(normalise="none", unit=2.0).apply)
    assert np.abs(metres(params, moved).pooled - metres(params, CLOUD).pooled)[0].max() > 1e-2
    sphere = VALUES.copy()
    for row, count in enumerate(COUNTS[:3, 0]):
        xyz = VALUES[row, :count, :3] - VALUES[row, :count, :3].mean(0)
        sphere[row, :count, :3] = 2 * xyz / np.linalg.norm(xyz, axis=1).max()  # 2 m are 1 unit
    assert_same(metres(params, CLOUD.replace(values=sphere)), APPLY(params, CLOUD))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_finite_with_missing_clouds(params, dtype):
    module = PLAIN.clone(dtype=dtype, radius=0.5)

    @jax.jit
    def run(params, values):
        found = module.apply(params, CLOUD.replace(values=values))
        return jnp.sum(jnp.square(found.x.astype(jnp.float32))) + jnp.sum(found.pooled.astype(jnp.float32)), found

    gradients, found = jax.grad(run, argnums=(0, 1), has_aux=True)(params, VALUES)
    assert found.x.dtype == dtype and not found.mask[3].any()
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves((gradients, found)))
    assert (gradients[1][3] == 0).all() and (np.asarray(gradients[1])[~CLOUD.mask] == 0).all()
    assert max(np.abs(x).max() for x in jax.tree.leaves(gradients[0]["params"]["groups"])) > 0


def test_scanned_equals_unrolled_and_a_class_token_comes_first(params):
    module, token = PLAIN.clone(pool="first"), jnp.linspace(-1, 1, 16).reshape(1, 1, 16)
    own = {"params": params["params"] | {"class_token": token}}
    found = jax.jit(module.apply)(own, CLOUD)
    assert found.x.shape == (4, 7, 16) and found.mask.sum(1).tolist() == [7, 7, 4, 0]
    np.testing.assert_array_equal(found.pooled, found.x[:, 0])
    inner = dict(own["params"])
    blocks = inner.pop("transformer")["blocks"]
    unrolled = {f"block_{i}": jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(2)}
    other = jax.jit(module.clone(scan=False).apply)({"params": inner | {"transformer": unrolled}}, CLOUD)
    assert_same(found, other, atol=1e-5)


def test_noise_is_drawn_with_the_keys_of_the_examples_alone():
    module, keys = PLAIN.clone(dropout=0.1, drop_path=0.1), example_keys(jax.random.key(1), 4)
    shapes = jax.eval_shape(module.init, jax.random.key(0), CLOUD)
    assert "random_bits" in str(jax.make_jaxpr(module.apply)(shapes, CLOUD, keys))
    assert "random_bits" not in str(jax.make_jaxpr(module.apply)(shapes, CLOUD, None))


def test_recomputing_changes_no_parameter_and_pools_have_their_shapes():
    for options in ({"remat": "full"}, {"pool": "attention"}, {"pool": "none"}):
        module = PLAIN.clone(**options)
        shapes = jax.eval_shape(module.init, jax.random.key(0), CLOUD)
        same = jax.tree.structure(shapes) == jax.tree.structure(jax.eval_shape(PLAIN.init, jax.random.key(0), CLOUD))
        assert same == (options != {"pool": "attention"})
        found = jax.eval_shape(module.apply, shapes, CLOUD)
        assert found.x.shape == (4, 6, 16) and (found.pooled is None) == (module.pool == "none")


def test_large_weights_have_a_sharding_rule():
    big = PointCloudEncoder(1024, 2, 16, 4096, group_hidden=(256, 512, 1024))
    shapes = jax.eval_shape(functools.partial(big.init, jax.random.key(0)), CLOUD)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert leaf.size < 2**20 or any(re.fullmatch(rule, name) for rule, _ in DEFAULT_RULES), name


def test_wrong_inputs_are_sentences():
    with pytest.raises(UserError, match=r"expected values \[batch, points, num_features=5\].* got \(4, 24, 4\)"):
        jax.eval_shape(PLAIN.clone(num_features=5).init, jax.random.key(0), CLOUD)
    with pytest.raises(UserError, match=r"expected a mask \[batch, points\] = \(4, 24\), got \(4, 1\)"):
        jax.eval_shape(PLAIN.init, jax.random.key(0), CLOUD.replace(mask=CLOUD.mask[:, :1]))
    for settings, message in (
        ({"normalise": "unit_shpere"}, "'unit_shpere' is unknown. Did you mean 'unit_sphere'"),
        ({"num_groups": 0}, "num_groups=0 must be at least 1"),
        ({"unit": 0.0}, "must be above 0"),
        ({"activation": "gelus"}, "Did you mean 'gelu'"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(PLAIN.clone(**settings).init, jax.random.key(0), CLOUD)

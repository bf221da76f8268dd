"""Means over what is there."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.arrays import mean_where

X = jnp.arange(24, dtype=jnp.bfloat16).reshape(2, 4, 3).at[:, 3].set(jnp.nan)
MASK = jnp.asarray([[True, True, False, False], [False] * 4])


def test_a_mean_is_of_what_is_there_and_finite_where_nothing_is():
    found = mean_where(X, MASK[..., None], axis=1)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [[1.5, 2.5, 3.5], [0, 0, 0]])
    np.testing.assert_array_equal(mean_where(X[..., 0], MASK), 1.5)
    np.testing.assert_array_equal(mean_where(X[..., 0], MASK, axis=1, keepdims=True), [[1.5], [0]])


def test_its_gradient_is_finite_and_of_what_is_there_alone():
    found = jax.grad(lambda x: jnp.sum(jnp.square(mean_where(x, MASK[..., None], axis=1))))(X)
    assert np.isfinite(found.astype(jnp.float32)).all()
    np.testing.assert_array_equal(found[0, :2].astype(jnp.float32), [[1.5, 2.5, 3.5]] * 2)
    assert not found[1].any() and not found[0, 2:].any()

"""Noise by example: rates, scaling, independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.dropout import drop_path, dropout, example_keys, fold, keep_tokens

KEYS = example_keys(jax.random.key(3), 64)


def test_rate_and_scale():
    y = np.asarray(dropout(jnp.ones((64, 500)), 0.3, KEYS))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 0.01  # 32,000 draws: 4 standard deviations


def test_no_keys_or_no_rate_is_no_noise():
    x = jnp.arange(6.0).reshape(2, 3)
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, KEYS[:2]) is x and fold(None, 1) is None


def test_drop_path_drops_whole_examples():
    y = np.asarray(drop_path(jnp.ones((64, 4, 5)), 0.5, KEYS)).reshape(64, -1)
    assert set(np.unique(y.min(1))) == {0.0, 2.0} and (y.min(1) == y.max(1)).all()


def test_an_example_draws_alike_in_any_batch_and_unlike_its_neighbours():
    x = jnp.ones((64, 50))
    whole = dropout(x, 0.5, KEYS)
    np.testing.assert_array_equal(dropout(x[10:12], 0.5, KEYS[10:12]), whole[10:12])
    assert len({row.tobytes() for row in np.asarray(whole)}) == 64
    assert not np.array_equal(dropout(x, 0.5, fold(KEYS, 1)), whole)


def test_kept_tokens_are_distinct_in_order_and_uniform():
    kept = np.asarray(keep_tokens(10, 4, example_keys(jax.random.key(0), 2000)))
    assert kept.shape == (2000, 4) and (np.diff(kept, axis=1) > 0).all()
    np.testing.assert_allclose(np.bincount(kept.ravel(), minlength=10) / 2000, 0.4, atol=0.05)

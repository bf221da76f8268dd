"""Cross attention blocks: by hand from their parts, and nothing from a context that is not there."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.attention import Attention
from mmjax.layers.cross_attention import CrossBlock
from mmjax.layers.dropout import example_keys
from mmjax.layers.mlp import Mlp
from tests.quick import run

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 4, 8)), jnp.float32)
CONTEXT = jnp.asarray(RNG.normal(size=(3, 5, 6)), jnp.float32)
MASK = jnp.asarray([[True] * 5, [True, True, False, False, False], [False] * 5])
BLOCK = CrossBlock(2, 16, dropout=0.5)
PARAMS = jax.tree.map(
    lambda leaf: jnp.asarray(RNG.normal(0, 0.5, leaf.shape), jnp.float32),
    jax.eval_shape(BLOCK.init, jax.random.key(0), X, (CONTEXT, MASK))["params"],
)


def norm(name, x):
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * PARAMS[name]["scale"] + PARAMS[name]["bias"]


def test_equals_its_parts_and_a_missing_context_adds_exactly_zero():
    found, _ = run(BLOCK, PARAMS, X, (CONTEXT, MASK))
    attention = PARAMS["attention"]
    branch = run(Attention(2), attention, norm("norm_attention", X), norm("norm_context", CONTEXT), MASK)
    x = X + np.where(np.arange(3)[:, None, None] < 2, branch, 0.0)
    np.testing.assert_allclose(found, x + run(Mlp(16), PARAMS["mlp"], norm("norm_mlp", x)), atol=1e-4)
    padded, _ = run(BLOCK, PARAMS, X, (jnp.where(MASK[..., None], CONTEXT, 1e4), MASK))
    np.testing.assert_array_equal(padded, found)


def test_noise_has_the_key_of_its_example_and_layer():
    keys, everyone, rows = example_keys(jax.random.key(1), 3), np.arange(3), np.array([2, 0, 1])

    def noisy(rows, layer):
        return run(BLOCK, PARAMS, X[rows], (CONTEXT[rows], MASK[rows]), keys[rows], layer)[0]

    np.testing.assert_allclose(noisy(rows, 1), noisy(everyone, 1)[rows], atol=1e-5)
    assert np.abs(noisy(rows, 1) - noisy(rows, 2)).max() > 0.1

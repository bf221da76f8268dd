"""Masks, patches, positions and pooling by hand."""

from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.masking import last_position
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.patchify import PatchEmbedding
from mmjax.layers.pooling import POOLS, Pool
from mmjax.layers.posemb import LearnedPositions, sincos_1d, sincos_2d
from mmjax.layers.transformer import Transformer

X = jnp.arange(24, dtype=jnp.float32).reshape(2, 4, 3)
MASK = jnp.asarray([[True, True, False, False], [False] * 4])


def test_the_last_position_that_is_there():
    np.testing.assert_array_equal(last_position(MASK), [1, 0])


@pytest.mark.parametrize(("kind", "row"), [("first", 0), ("last", 1)])
def test_pools_that_pick_a_token(kind, row):
    np.testing.assert_array_equal(Pool(kind).apply({}, X, MASK)[0], X[0, row])


def test_attention_pooling_ignores_padding_and_is_finite_without_tokens():
    pool = Pool("attention", num_heads=1, mlp_dim=6)
    params = pool.init(jax.random.key(0), X, MASK)
    found = pool.apply(params, X, MASK)
    other = pool.apply(params, X.at[0, 2:].set(100.0), MASK)
    np.testing.assert_allclose(found[0], other[0], atol=1e-5)
    assert np.isfinite(found).all()
    assert Pool("none").apply({}, X, MASK) is None


def test_unknown_names_are_sentences():
    with pytest.raises(UserError, match=r"pool: 'frist' is unknown. Did you mean 'first'\?"):
        Pool("frist").init(jax.random.key(0), X, MASK)
    with pytest.raises(UserError, match=r"remat: 'ful' is unknown. Did you mean 'full'\?"):
        Transformer(1, 1, 4, remat="ful").init(jax.random.key(0), X)
    with pytest.raises(UserError, match=r"activation: 'gelutanh' is unknown. Did you mean 'gelu_tanh'\?"):
        Transformer(1, 1, 4, activation="gelutanh").init(jax.random.key(0), X)
    assert len(POOLS) == 5


def test_patches_equal_a_strided_convolution():
    images = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    module = PatchEmbedding(4, 5)
    params = module.init(jax.random.key(1), images)
    kernel = params["params"]["embedding"]["kernel"].reshape(4, 4, 3, 5)
    expected = jax.lax.conv_general_dilated(images, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(module.apply(params, images), expected.reshape(2, 6, 5), atol=1e-5)
    with pytest.raises(UserError, match="8x12 pixels cannot be cut into patches of 5"):
        PatchEmbedding(5, 5).init(jax.random.key(0), images)


def test_sincos_positions():
    table = sincos_1d(np.arange(5), 8)
    np.testing.assert_allclose(table[0], [0] * 4 + [1] * 4)
    assert table[3, 0] == pytest.approx(np.sin(3))
    grid = sincos_2d(2, 3, 8).reshape(2, 3, 8)
    np.testing.assert_array_equal(grid[0, :, :4], grid[1, :, :4])  # half the channels know the column alone
    np.testing.assert_array_equal(grid[:, 0, 4:], grid[:, 2, 4:])
    with pytest.raises(UserError, match="multiple of 4"):
        sincos_2d(2, 2, 6)


def test_learned_positions_of_another_length_are_a_sentence():
    module = LearnedPositions(name="positions")
    params = module.init(jax.random.key(0), X)
    np.testing.assert_array_equal(module.apply(params, X), X + params["params"]["table"])
    with pytest.raises(UserError, match=r"is of 4 positions of width 3, but 3 of width 3 came; .*'sincos'"):
        module.apply(params, X[:, :3])


def test_activations_by_their_formulas():
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), [v * (1 + erf(v / 2**0.5)) / 2 for v in x], atol=1e-6)
    np.testing.assert_allclose(ACTIVATIONS["quick_gelu"](x), x / (1 + np.exp(-1.702 * x)), atol=1e-6)
    assert np.max(np.abs(ACTIVATIONS["gelu_tanh"](x) - ACTIVATIONS["gelu"](x))) < 1e-3

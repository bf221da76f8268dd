"""The codebook: the nearest code by cosine, and a gradient that passes straight through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.quantise import Codebook, straight_through, unit_length

Z = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


def test_each_token_gets_the_code_of_the_highest_cosine():
    module = Codebook(7)
    variables = module.init(jax.random.key(0), Z)
    codes, vectors, cosines = module.apply(variables, Z)
    book = np.asarray(variables["params"]["codebook"], np.float64)
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    expected = Z @ book.T / np.linalg.norm(Z, axis=-1, keepdims=True)
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    np.testing.assert_array_equal(codes, expected.argmax(axis=-1))
    np.testing.assert_allclose(vectors, book[codes], atol=1e-6)
    distance = np.square(np.asarray(unit_length(Z))[:, :, None] - book).sum(axis=-1)
    np.testing.assert_array_equal(codes, distance.argmin(axis=-1))  # the nearest, both of unit length
    np.testing.assert_array_equal(codes, module.apply(variables, 100 * Z)[0])


def test_the_gradient_passes_straight_through():
    quantised = jnp.asarray(Z[::-1])
    found = straight_through(Z, quantised)
    np.testing.assert_allclose(found, quantised, atol=1e-6)
    weights = np.arange(Z.size, dtype=np.float32).reshape(Z.shape)
    to_z, to_code = jax.grad(lambda z, e: jnp.sum(weights * straight_through(z, e)), argnums=(0, 1))(Z, quantised)
    np.testing.assert_array_equal(to_z, weights)
    assert not np.asarray(to_code).any()


def test_a_vector_of_zeros_has_a_finite_gradient():
    grad = jax.grad(lambda z: jnp.sum(unit_length(z)))(jnp.zeros((1, 1, 4)))
    assert np.isfinite(grad).all()


def test_wrong_shapes_are_a_sentence():
    with pytest.raises(UserError, match=r"expected tokens \[B, N, d\]"):
        Codebook(7).init(jax.random.key(0), Z[0])

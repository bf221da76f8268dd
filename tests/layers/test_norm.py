"""LayerNorm beside flax's, which it is but for what rematerialisation keeps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.norm import NORM_EPSILON, LayerNorm
from tests.quick import jit

X = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 16))
PARAMS = {"params": {"scale": jnp.ones(16), "bias": jnp.zeros(16)}}


def test_it_is_flax_layer_norm():
    ours, flax = LayerNorm(jnp.float32), nn.LayerNorm(epsilon=NORM_EPSILON)
    params = {"scale": jnp.linspace(0.5, 2.0, 16), "bias": jnp.linspace(-1.0, 1.0, 16)}
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), X)["params"]) == jax.tree.map(jnp.shape, params)

    def value_and_gradients(module):
        def value(params, x):
            return jnp.sum(jnp.sin(module.apply({"params": params}, x)))

        return jit(jax.value_and_grad(value, (0, 1)))(params, X)

    found, expected = value_and_gradients(ours), value_and_gradients(flax)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=2e-5), found, expected)


def test_what_does_not_vary_is_the_bias():
    x = jnp.full((1, 1, 16), 1e4)  # the difference of squares rounds to less than 0
    found, gradient = jax.value_and_grad(lambda x: LayerNorm().apply(PARAMS, x).sum())(x)
    assert found == 0 and jnp.isfinite(gradient).all()


def test_bfloat16_comes_and_goes_but_statistics_are_float32():
    x = X.astype(jnp.bfloat16)
    found = LayerNorm(jnp.bfloat16).apply(PARAMS, x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found, LayerNorm().apply(PARAMS, x.astype(jnp.float32)), atol=0.02)

"""Vectors of encoders and of the fusion as predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Outputs, Tokens
from mmjax.decoders.features import Features

X = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
TOKENS = Tokens(jnp.asarray(X, jnp.bfloat16), jnp.asarray(MASK))


def read(features, outputs):
    return features.apply({"params": features.init(jax.random.key(0), outputs).get("params", {})}, outputs)


def test_an_encoder_s_are_what_it_pools_or_the_mean_of_its_tokens():
    found = read(Features("image"), Outputs(tokens={"image": TOKENS}))
    expected = [X[0].mean(axis=0), X[1, :2].mean(axis=0), np.zeros(5)]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)
    pooled = TOKENS.replace(pooled=TOKENS.x[:, 1])
    found = read(Features("image"), Outputs(tokens={"image": pooled}))
    np.testing.assert_array_equal(found[:2], pooled.pooled[:2].astype(jnp.float32))
    np.testing.assert_array_equal(found[2], 0)  # is missing


def test_the_fusion_s_are_its_joint_vector():
    fused = Tokens(jnp.zeros((3, 1, 5)), jnp.ones((3, 1), bool), jnp.asarray(X[:, 0]))
    np.testing.assert_array_equal(read(Features(), Outputs(fused=fused)), X[:, 0])


def test_what_is_not_there():
    assert Features("text").apply({}, Outputs(tokens={"image": TOKENS})) == {}  # a call without the modality
    with pytest.raises(UserError, match=r"Features.modality: 'imag' is unknown. Did you mean 'image'\?"):
        Features("imag").init(jax.random.key(0), Outputs(tokens={"image": TOKENS}))
    with pytest.raises(UserError, match="Features without a modality: the fusion gives no joint vector"):
        Features().apply({}, Outputs())

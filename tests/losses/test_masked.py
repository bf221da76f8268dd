"""Losses over hidden tokens: against numbers worked out by hand, and what is not hidden reaches nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax.core.errors import UserError
from mmjax.losses.masked import masked_cross_entropy, masked_squared_error, normalised_patches

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5)).astype(np.float32)
TARGETS = RNG.integers(0, 5, (3, 4))
MASK = np.array([[True, True, False, False], [False] * 4, [True] * 4])


def test_cross_entropy_is_the_mean_over_each_example_s_hidden_tokens():
    loss, accuracy = masked_cross_entropy(LOGITS, TARGETS, MASK)
    logs = np.take_along_axis(scipy.special.log_softmax(LOGITS.astype(np.float64), axis=-1), TARGETS[..., None], 2)
    expected = [-logs[0, :2].mean(), 0, -logs[2].mean()]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    right = LOGITS.argmax(axis=-1) == TARGETS
    np.testing.assert_allclose(accuracy, [right[0, :2].mean(), 0, right[2].mean()])


def test_equal_logits_cost_ln_k():
    loss, _ = masked_cross_entropy(jnp.zeros((2, 3, 7), jnp.bfloat16), np.zeros((2, 3), int), np.ones((2, 3), bool))
    np.testing.assert_allclose(loss, np.log(7), rtol=1e-6)
    assert loss.dtype == jnp.float32


def test_squared_error_is_the_mean_over_hidden_patches():
    targets = RNG.normal(size=LOGITS.shape)
    expected = np.square(LOGITS - targets).mean(axis=-1)
    expected = [expected[0, :2].mean(), 0, expected[2].mean()]
    np.testing.assert_allclose(masked_squared_error(LOGITS, targets, MASK), expected, rtol=1e-5)


def test_what_is_not_hidden_reaches_neither_value_nor_gradient():
    garbage = np.where(MASK[..., None], LOGITS, np.nan)
    targets = np.where(MASK, TARGETS, 99)

    def total(logits, targets):
        return masked_cross_entropy(logits, targets, MASK)[0].sum() + masked_squared_error(logits, LOGITS, MASK).sum()

    (plain, grad), (other, other_grad) = (
        jax.value_and_grad(total)(jnp.asarray(x), y) for x, y in ((LOGITS, TARGETS), (garbage, targets))
    )
    assert plain == other
    np.testing.assert_array_equal(grad, other_grad)
    assert not np.asarray(grad)[~MASK].any() and np.isfinite(grad).all()


def test_normalised_patches_have_mean_0_and_variance_1_and_plain_ones_are_0():
    patches = RNG.integers(0, 256, (2, 3, 48)).astype(np.uint8)
    patches[1, 1] = 255
    found = np.asarray(normalised_patches(patches))
    np.testing.assert_allclose(found.mean(axis=-1), 0, atol=1e-5)
    variance = np.ones((2, 3))
    variance[1, 1] = 0
    np.testing.assert_allclose(np.square(found).mean(axis=-1), variance, atol=1e-5)


def test_shapes_that_do_not_fit_are_a_sentence():
    with pytest.raises(UserError, match=r"targets \[3, 5\] and mask \[3, 4\] do not fit"):
        masked_cross_entropy(LOGITS, np.zeros((3, 5), int), MASK)

"""Attention against plain numpy: masks, causality, cross attention, rotary positions, what is stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.attention import Attention
from mmjax.layers.posemb import rotary

RNG = np.random.default_rng(0)


def by_hand(params, x, context, mask, causal, heads):
    """Softmax attention in float64."""

    def project(name, values):
        return np.einsum("bnd,dhk->bnhk", values, np.asarray(params[name]["kernel"], np.float64)) + params[name]["bias"]

    query, key, value = project("query", x), project("key", context), project("value", context)
    logits = np.einsum("bnhk,bmhk->bhnm", query, key) / np.sqrt(query.shape[-1])
    allowed = mask[:, None, None, :] & (np.tril(np.ones(logits.shape[-2:], bool)) if causal else True)
    logits = np.where(allowed, logits, -1e30)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhnm,bmhk->bnhk", weights, value)
    return np.einsum("bnhk,hkd->bnd", y, np.asarray(params["out"]["kernel"], np.float64)) + params["out"][
        "bias"
    ], weights


@pytest.mark.parametrize(("causal", "cross"), [(False, False), (True, False), (False, True)])
def test_equals_numpy(causal, cross):
    x = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    context = RNG.normal(size=(2, 7, 6)).astype(np.float32) if cross else x
    mask = np.ones(context.shape[:2], bool)
    mask[1, 3:] = False
    module = Attention(2, causal=causal)
    params = module.init(jax.random.key(0), x, context)["params"]
    found, stored = module.apply({"params": params}, x, context, mask, mutable=["intermediates"])
    expected, weights = by_hand(params, x, context, mask, causal, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(stored["intermediates"]["attention"][0], weights, atol=1e-6)
    np.testing.assert_allclose(module.apply({"params": params}, x, context, mask), found, atol=1e-6)


def test_a_row_without_keys_is_finite_with_finite_gradients():
    x = jnp.asarray(RNG.normal(size=(2, 3, 8)), jnp.bfloat16)
    mask = jnp.asarray([[True] * 3, [False] * 3])
    module = Attention(2, dtype=jnp.bfloat16)
    params = module.init(jax.random.key(0), x)
    value, grads = jax.value_and_grad(lambda p: jnp.sum(module.apply(p, x, mask=mask).astype(jnp.float32) ** 2))(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_a_width_that_heads_do_not_divide_is_a_sentence():
    with pytest.raises(UserError, match="width 8 is not a multiple of num_heads 3"):
        Attention(3).init(jax.random.key(0), jnp.zeros((1, 2, 8)))


def test_rotary_logits_depend_on_the_distance_alone():
    query, key = RNG.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def logit(i, j):
        q, k = rotary(query, jnp.asarray([i])), rotary(key, jnp.asarray([j]))
        return float(jnp.sum(q * k))

    assert logit(3, 1) == pytest.approx(logit(12, 10), rel=1e-4)
    assert abs(logit(3, 1) - logit(3, 2)) > 1e-2
    np.testing.assert_allclose(np.linalg.norm(rotary(query, jnp.asarray([7]))), np.linalg.norm(query), rtol=1e-6)


def test_perturbed_weights_have_the_gradient_of_the_weights():
    """The output is linear in the weights: what it gains by a small step is the gradient times the step."""
    x = RNG.normal(size=(2, 4, 8)).astype(np.float32)
    mask = np.array([[True] * 4, [True, True, False, False]])
    module, wanted = Attention(2), RNG.normal(size=(2, 4, 8)).astype(np.float32)
    params = module.init(jax.random.key(0), x)["params"]

    def score(step):
        variables = {"params": params, "perturbations": {"attention": step}}
        return jnp.sum(wanted * module.apply(variables, x, mask=mask))

    zeros = jnp.zeros((2, 2, 4, 4))
    plain = jnp.sum(wanted * module.apply({"params": params}, x, mask=mask))
    value, gradient = jax.value_and_grad(score)(zeros)
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    for place in ((0, 0, 1, 2), (1, 1, 3, 0)):
        gained = score(zeros.at[place].set(0.5)) - value
        assert gained == pytest.approx(0.5 * float(gradient[place]), abs=1e-5) and abs(gained) > 1e-3


def test_where_nobody_looks_nothing_is_there():
    """Init makes no collection but the parameters; to store the weights changes no output, to the bit."""
    x = RNG.normal(size=(2, 4, 8)).astype(np.float32)
    module = Attention(2)
    variables = module.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    stored, _ = module.apply(variables, x, mutable=["intermediates"])
    np.testing.assert_array_equal(module.apply(variables, x), stored)
    programs = [jax.make_jaxpr(module.apply)(v, x) for v in (variables, variables | {"perturbations": {}})]
    assert str(programs[0]) == str(programs[1])

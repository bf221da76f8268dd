"""Heads on a joint vector and on votes, by hand; probes that the model does not feel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Outputs, Tokens, Votes
from mmjax.decoders.head import Head, log_mixture
from mmjax.decoders.probes import Probes
from tests.toy import toy_batch, toy_model

RNG = np.random.default_rng(0)
VECTORS = {name: RNG.normal(size=(4, 5)).astype(np.float32) for name in "ab"}
WEIGHTS = {"a": np.array([0.5, 1, 0, 0], np.float32), "b": np.array([0.5, 0, 1, 0], np.float32)}


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def combined(rule: str, kind: str = "classes"):
    head, outputs = Head(3, kind), Outputs(votes=Votes(VECTORS, WEIGHTS, rule))
    params = head.init(jax.random.key(0), outputs)["params"]
    answers = {n: VECTORS[n] @ params[n]["kernel"] + params[n]["bias"] for n in "ab"}
    return np.asarray(head.apply({"params": params}, outputs)), answers


def test_a_mixture_is_the_mean_of_probabilities():
    found, answers = combined("mixture")
    expected = sum(WEIGHTS[n][:, None] * softmax(answers[n]) for n in "ab")
    np.testing.assert_allclose(np.exp(found[:3]), expected[:3], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[3], 0)  # no vote at all


def test_a_mixture_that_is_wrong_and_sure_of_it_has_its_loss_and_gradient():
    head = Head(3)
    params = {"a": {"kernel": np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)}}

    def loss(logits):
        votes = Votes({"a": logits}, {"a": jnp.ones(1)}, "mixture")
        return -jax.nn.log_softmax(head.apply({"params": params}, Outputs(votes=votes)))[0, 0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray([[0.0, 100.0, 0.0]]))
    np.testing.assert_allclose(value, 100, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-1, 1, 0]], atol=1e-6)


def test_gradients_of_a_mixture_are_finite_without_votes_and_where_some_weigh_nothing():
    weights = jnp.asarray([[0.3, 0.7], [0, 1], [0, 0], [1e-40, 1]], jnp.float32)[..., None]
    logs = jax.nn.log_softmax(jnp.asarray([[[0.0, 300.0], [300.0, 0.0]]] * 4))

    def total(logs, weights):
        return jnp.sum(log_mixture(logs, weights)[:, 0])

    found = log_mixture(logs, weights)
    np.testing.assert_allclose(found, [[np.log(0.7), np.log(0.3)], [0, -300], [0, 0], [0, -300]], atol=1e-4)
    by_logs, by_weights = jax.grad(total, argnums=(0, 1))(logs, weights)
    assert np.isfinite(by_logs).all() and np.isfinite(by_weights).all()
    np.testing.assert_allclose(by_weights[..., 0], [[0, 1 / 0.7], [0, 1], [0, 0], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(by_logs[..., 0], [[0, 1], [0, 1], [0, 0], [0, 1]], atol=1e-6)


def test_a_product_of_experts_multiplies_probabilities():
    found, answers = combined("product")
    log = {n: np.log(softmax(answers[n])) for n in "ab"}
    np.testing.assert_allclose(found[0], log["a"][0] + log["b"][0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], log["a"][1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[2], log["b"][2], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[3], 0)


def test_values_are_averaged():
    found, answers = combined("mixture", "values")
    np.testing.assert_allclose(found, sum(WEIGHTS[n][:, None] * answers[n] for n in "ab"), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found, combined("product", "values")[0])


def test_a_head_without_anything_to_read_is_a_sentence():
    with pytest.raises(UserError, match="gives no joint vector"):
        Head(3).init(jax.random.key(0), Outputs())
    with pytest.raises(UserError, match="Did you mean 'classes'"):
        Head(3, "class").init(jax.random.key(0), Outputs())
    with pytest.raises(UserError, match="'mean' is unknown"):
        Head(3).init(jax.random.key(0), Outputs(votes=Votes(VECTORS, WEIGHTS, "mean")))


def test_the_joint_vector_is_read_linearly_in_float32():
    fused = Tokens(jnp.zeros((4, 1, 5)), jnp.ones((4, 1), bool), jnp.asarray(VECTORS["a"], jnp.bfloat16))
    head = Head(2)
    params = head.init(jax.random.key(0), Outputs(fused=fused))["params"]
    found = head.apply({"params": params}, Outputs(fused=fused))
    assert found.dtype == jnp.float32
    expected = np.asarray(fused.pooled, np.float32) @ params["joint"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_probes_learn_and_the_model_does_not_feel_them():
    model, batch = toy_model(), toy_batch()
    params = model.init(jax.random.key(0), batch.streams)["params"]

    def total(params):
        predictions = model.apply({"params": params}, batch.streams).predictions
        return sum(jnp.sum(jnp.square(answer)) for answer in predictions["probe"].values())

    grads = jax.grad(total)(params)
    for name, tree in grads.items():
        moved = any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))
        assert moved == (name == "decoders_probe"), name
    assert set(Probes(3).init(jax.random.key(0), model.apply({"params": params}, batch.streams))["params"]) == {
        "a",
        "b",
    }

"""The optimizer: what decays, what is frozen, what is bounded, and that all four preconditioners learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.training.optimizer import PRECONDITIONERS, Optimizer

PARAMS = {
    "tower": {"kernel": jnp.ones((256, 256)), "bias": jnp.ones(256)},
    "logit_scale": jnp.asarray(4.6),
}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def updates(optimizer: Optimizer, grads, params=PARAMS):
    tx = optimizer.build(params, lambda step: optimizer.learning_rate)
    return tx.update(grads, tx.init(params), params)


def test_only_matrices_decay():
    found, _ = updates(Optimizer(weight_decay=0.5, learning_rate=0.1), ZEROS)
    np.testing.assert_allclose(found["tower"]["kernel"], -0.05, rtol=1e-6)
    assert float(found["logit_scale"]) == 0 and not found["tower"]["bias"].any()


def test_frozen_parameters_keep_their_values_and_cost_no_memory():
    optimizer = Optimizer(weight_decay=0.5, frozen=["tower/kernel"])
    found, state = updates(optimizer, jax.tree.map(jnp.ones_like, PARAMS))
    assert not found["tower"]["kernel"].any() and found["tower"]["bias"].all()
    trained = PARAMS["tower"]["bias"].size + 1
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) <= 2 * trained + 4


def test_bounds_hold_after_the_update():
    optimizer = Optimizer("sgd", learning_rate=1.0, clip_norm=None, bounds={"logit_scale": (0.0, float(np.log(100)))})
    grads = {**ZEROS, "logit_scale": jnp.asarray(-3.0)}
    found, _ = updates(optimizer, grads)
    assert float(PARAMS["logit_scale"] + found["logit_scale"]) == pytest.approx(np.log(100), rel=1e-6)


def test_clipping_is_by_global_norm():
    grads = jax.tree.map(lambda p: 10 * jnp.ones_like(p), PARAMS)
    found, _ = updates(Optimizer("sgd", learning_rate=1.0, clip_norm=1.0), grads)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(found)))
    assert norm == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_every_preconditioner_descends(name):
    optimizer = Optimizer(name, learning_rate=0.05, clip_norm=None)
    target = jnp.linspace(-1, 1, 256 * 256).reshape(256, 256)
    params = {"w": {"kernel": jnp.zeros((256, 256))}}
    tx = optimizer.build(params, lambda step: 0.05)

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: 0.5 * jnp.sum((p["w"]["kernel"] - target) ** 2))(params)
        found, state = tx.update(grads, state, params)
        return jax.tree.map(jnp.add, params, found), state

    state = tx.init(params)
    for _ in range(40):
        params, state = step(params, state)
    assert float(jnp.mean((params["w"]["kernel"] - target) ** 2)) < 0.05 * float(jnp.mean(target**2))


def test_adafactor_keeps_rows_and_columns_only():
    tx = Optimizer("adafactor", b1=0.9).build(PARAMS, lambda step: 0.1)
    adam = Optimizer().build(PARAMS, lambda step: 0.1)
    assert _bytes(tx) < 0.3 * _bytes(adam)


def _bytes(tx) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(tx.init, PARAMS)))


def test_unknown_names_are_sentences():
    with pytest.raises(UserError, match=r"'adam' is unknown. Did you mean 'adamw'\?"):
        Optimizer("adam").build(PARAMS, lambda step: 0.1)
    with pytest.raises(UserError, match=r"optimizer.frozen: the pattern 'towr/.\*' matches no parameter"):
        Optimizer(frozen=["towr/.*"]).build(PARAMS, lambda step: 0.1)

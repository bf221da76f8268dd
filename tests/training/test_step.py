"""The train step on a toy model: updates, skipped updates, frozen leaves, moving average."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.types import Batch, Stream
from mmjax.tasks.task import TaskLoss
from mmjax.training.optimizer import Optimizer
from mmjax.training.state import create
from mmjax.training.step import train_step

PARAMS = {"used": {"kernel": jnp.asarray([1.0, 2.0])}, "kept": {"kernel": jnp.asarray([3.0])}}


class Square:
    """Mean of (x . used + kept)^2 over the examples that count."""

    def embed(self, apply, params, batch, rng):
        return apply(params, batch.streams, rng), {}

    def loss(self, by_example, shared, batch):
        return TaskLoss(by_example**2, batch.mask, {"largest": jnp.max(by_example)})


def apply(params, streams, rng):
    return streams["x"].values @ params["used"]["kernel"] + params["kept"]["kernel"][0]


def batch(values, mask=(True, True)) -> Batch:
    stream = Stream(jnp.asarray(values), jnp.ones((2, 1), bool))
    return Batch({"x": stream}, jnp.arange(2), jnp.asarray(mask))


def make(optimizer: Optimizer):
    tx = optimizer.build(PARAMS, lambda step: optimizer.learning_rate)
    trainable = optimizer.trainable(PARAMS)
    state = create(PARAMS, tx, trainable if optimizer.ema else None)
    settings = {"apply": apply, "task": Square(), "optimizer": tx, "trainable": trainable, "seed": 0}
    settings["learning_rate"] = lambda step: 0.1 + step
    return state, jax.jit(functools.partial(train_step, **settings, ema_decay=optimizer.ema))


SGD = {"name": "sgd", "b1": 0.0, "learning_rate": 0.1, "clip_norm": None}


def test_one_update_is_the_gradient_by_hand():
    state, step = make(Optimizer(**SGD))
    state, metrics = step(state, batch([[1.0, 0.0], [5.0, 5.0]], (True, False)))
    assert float(metrics["loss"]) == 16 and float(metrics["largest"]) == 18
    assert float(metrics["learning_rate"]) == pytest.approx(0.1)
    np.testing.assert_allclose(state.params["used"]["kernel"], [1 - 0.1 * 8, 2.0], rtol=1e-6)
    np.testing.assert_allclose(state.params["kept"]["kernel"], [3 - 0.1 * 8], rtol=1e-6)
    assert int(state.step) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_update_is_skipped_and_counted(bad):
    state, step = make(Optimizer(**SGD, ema=0.5))
    for values, skipped, in_row in (([[bad, 0.0]] * 2, 1, 1), ([[bad, 0.0]] * 2, 2, 2), ([[1.0, 0.0]] * 2, 2, 0)):
        before = state
        state, metrics = step(state, batch(values))
        assert (int(metrics["skipped"]), int(metrics["skipped_in_row"])) == (skipped, in_row)
        same = jax.tree.map(np.array_equal, (before.params, before.ema), (state.params, state.ema))
        assert all(jax.tree.leaves(same)) == (in_row > 0)
    assert int(state.step) == 3


def test_frozen_leaves_stay_and_have_no_average():
    state, step = make(Optimizer(**SGD, frozen=["kept/kernel"], ema=0.75))
    state, _ = step(state, batch([[1.0, 0.0]] * 2))
    assert float(state.params["kept"]["kernel"][0]) == 3
    assert state.ema["kept"]["kernel"] is None
    np.testing.assert_allclose(state.ema["used"]["kernel"], [0.75 * 1 + 0.25 * (1 - 0.8), 2.0], rtol=1e-6)
    assert float(state.eval_params["kept"]["kernel"][0]) == 3
    np.testing.assert_array_equal(state.eval_params["used"]["kernel"], state.ema["used"]["kernel"])

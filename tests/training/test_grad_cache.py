"""Gradient caching gives the loss and the gradient of the undivided batch, dropout included."""

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.dropout import example_keys
from mmjax.tasks.contrastive import Contrastive
from mmjax.training.experiment import build
from mmjax.training.grad_cache import join, split, value_and_grad
from mmjax.training.trainer import apply_of
from tests.training.tiny import relative_difference, tiny_batch, tiny_config


@pytest.fixture(scope="module")
def setup():
    model = build(tiny_config()).model
    batch = tiny_batch()
    params = jax.jit(model.init)(jax.random.key(0), batch.streams)["params"]
    return apply_of(model), params, batch, example_keys(jax.random.key(1), batch.size)


@pytest.mark.parametrize(("kind", "cuts"), [("softmax", (2, 8)), ("sigmoid", (4,))])
def test_equals_the_undivided_batch_with_dropout(setup, kind, cuts):
    apply, params, batch, rng = setup
    task = Biased() if kind == "sigmoid" else Contrastive(form="dense")
    run = jax.jit(lambda parts: value_and_grad(task, apply, params, batch, rng, parts), static_argnums=0)
    (expected, _), expected_grads = run(1)
    quiet = jax.jit(lambda: value_and_grad(task, apply, params, batch, None, 1)[0][0])()  # no gradient is compiled
    assert abs(float(expected - quiet)) > 1e-3  # dropout is at work
    for parts in cuts:
        (loss, _), grads = run(parts)
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        assert relative_difference(expected_grads, grads) < 2e-5  # float32 sums in another order


class Biased(Contrastive):
    """Sigmoid with a bias that the tiny model does not learn."""

    def __init__(self):
        super().__init__(kind="sigmoid", form="dense")

    def embed(self, apply, params, batch, rng):
        by_example, shared = super().embed(apply, params, batch, rng)
        return by_example, shared | {"logit_bias": -shared["logit_scale"]}


def test_split_and_join_are_inverse():
    x = np.arange(24).reshape(12, 2)
    np.testing.assert_array_equal(join(split(x, 3)), x)
    np.testing.assert_array_equal(split(x, 3)[0], x[::3])


def test_a_batch_that_does_not_divide_is_a_sentence(setup):
    apply, params, batch, rng = setup
    with pytest.raises(UserError, match="micro_batches: 3 does not divide the batch of 16"):
        value_and_grad(Contrastive(), apply, params, batch, rng, 3)

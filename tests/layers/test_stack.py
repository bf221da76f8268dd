"""Stacks of layers: scanned, unrolled and rematerialised give the same, which is the transformer's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.dropout import example_keys
from mmjax.layers.stack import stack
from mmjax.layers.transformer import Block, Transformer
from tests.quick import jit

X = jax.random.normal(jax.random.key(0), (2, 3, 8))
MASK = jnp.asarray([[True] * 3, [True, False, False]])
KEYS = example_keys(jax.random.key(1), 2)
SIZES = {"num_heads": 2, "mlp_dim": 12, "dropout": 0.3}


class Plain(nn.Module):
    """A layer without attention."""

    @nn.compact
    def __call__(self, x, constant, rng, number):
        return nn.Dense(x.shape[-1])(x), None


class Stack(nn.Module):
    scan: bool = True
    remat: str = "none"
    depth: int = 2
    batch_parts: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, mask, rng):
        how = {"scan": self.scan, "remat": self.remat, "batch_parts": self.batch_parts}
        return stack(Block, SIZES | {"dtype": self.dtype}, self.depth, **how, name="blocks")(x, mask, rng)


def test_scanned_unrolled_and_remat_agree_with_the_transformer():
    transformer = Transformer(2, **SIZES)
    params = jit(transformer.init)(jax.random.key(2), X, MASK, KEYS)["params"]
    unrolled = {f"blocks_{layer}": jax.tree.map(lambda leaf, i=layer: leaf[i], params["blocks"]) for layer in (0, 1)}

    def value(module, params):
        return jnp.sum(module.apply({"params": params}, X, MASK, KEYS) ** 2)

    expected, gradient = jit(jax.value_and_grad(lambda p: value(transformer, p)))(params)
    found, other = jit(jax.value_and_grad(lambda p: value(Stack(remat="full"), p)))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), other, gradient)
    np.testing.assert_allclose(jit(lambda p: value(Stack(scan=False), p))(unrolled), expected, rtol=1e-6)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_the_batch_give_what_the_whole_does(scan, parts):
    batch = 6  # 2 parts of it, for 4 do not divide it
    x = jax.random.normal(jax.random.key(3), (batch, 3, 8))
    mask = jnp.arange(3) < jnp.asarray([3, 1, 2, 3, 3, 2])[:, None]
    keys = example_keys(jax.random.key(4), batch)
    whole, split = (Stack(scan=scan, remat="core", batch_parts=number) for number in (1, parts))
    params = jit(whole.init)(jax.random.key(2), x, mask, keys)["params"]
    other = jax.eval_shape(split.init, jax.random.key(2), x, mask, keys)["params"]
    assert jax.tree.structure(other) == jax.tree.structure(params)

    def value_and_gradients(module):
        def value(params, x):
            return jnp.sum(jnp.sin(module.apply({"params": params}, x, mask, keys)))

        return jit(jax.value_and_grad(value, (0, 1)))(params, x)

    expected, found = value_and_gradients(whole), value_and_gradients(split)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize("parts", [1, 3])
def test_kernels_are_cast_once_for_all_parts_and_norms_stay_float32(parts):
    module = Stack(scan=False, depth=1, batch_parts=parts, dtype=jnp.bfloat16)
    x, keys = jnp.ones((3, 3, 8), jnp.bfloat16), example_keys(jax.random.key(4), 3)
    params = jax.eval_shape(module.init, jax.random.key(2), x, None, keys)["params"]
    program = str(jax.make_jaxpr(lambda params: module.apply({"params": params}, x, None, keys))(params))
    assert program.count("bf16[8,12] = convert_element_type") == 1  # of the MLP's first kernel, [D, hidden]
    assert program.count("bf16[8] = convert_element_type") == 2 * parts  # two biases, and no scale of a norm


def kept(remat):
    """Returns the shapes of what a stack keeps for the backward pass."""
    module = Stack(scan=False, remat=remat)
    params = jax.eval_shape(module.init, jax.random.key(2), X, MASK, None)["params"]
    pull_back = jax.eval_shape(
        lambda p, x: jax.vjp(lambda *a: module.apply({"params": a[0]}, a[1], MASK, None), p, x)[1], params, X
    )
    return [leaf.shape for leaf in jax.tree.leaves(pull_back)]


def test_core_keeps_the_statistics_of_norms():
    assert kept("core").count((2, 3, 1)) == 8 and kept("full").count((2, 3, 1)) == 0  # mean and variance of 4 norms


def test_core_keeps_matrix_products_and_sums_but_neither_probabilities_nor_activations():
    probabilities, hidden = (1, 2, 2, 3, 3), (2, 3, SIZES["mlp_dim"])
    none, core, mlp, full = (kept(remat) for remat in ("none", "core", "mlp", "full"))
    assert none.count(probabilities) >= 2 and core.count(probabilities) == full.count(probabilities) == 0
    assert none.count(hidden) > core.count(hidden) == 2 and full.count(hidden) == 0
    assert mlp.count(hidden) == 0 and core.count((2, 3, 8)) == mlp.count((2, 3, 8)) > full.count((2, 3, 8))
    assert (
        core.count((2, 3, 2, 4)) == mlp.count((2, 3, 2, 4)) == 8
    )  # queries, keys, values and what attention gives, of two layers


def test_core_of_a_layer_without_marks_is_full():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return stack(Plain, {}, 2, scan=True, remat="core", name="layers")(x, None, None)

    jax.eval_shape(Outer().init, jax.random.key(0), X)


def test_wrong_settings_are_sentences():
    with pytest.raises(UserError, match=r"remat: 'ful' is unknown. Did you mean 'full'\?"):
        jax.eval_shape(Stack(remat="ful").init, jax.random.key(0), X, MASK, KEYS)
    with pytest.raises(UserError, match=r"blocks.depth=0 must be at least 1"):
        jax.eval_shape(Stack(depth=0).init, jax.random.key(0), X, MASK, KEYS)

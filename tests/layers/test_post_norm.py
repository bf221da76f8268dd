"""Post-norm: the block by its formula, and the stacks of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.encoders.text import TextEncoder
from mmjax.layers.attention import Attention
from mmjax.layers.dropout import example_keys
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import LayerNorm
from mmjax.layers.transformer import Block, Transformer
from tests.quick import jit, run

SIZES = {"num_heads": 2, "mlp_dim": 12, "norm": "post"}


def drawn(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)


def inputs():
    return jax.random.normal(jax.random.key(1), (3, 5, 8)), jnp.arange(5) < jnp.array([[5], [2], [1]])


def test_a_block_by_its_formula():
    x, mask = inputs()
    params = drawn(Block(**SIZES), x, mask)
    part = lambda module, name, *given: module.apply({"params": params[name]}, *given)  # noqa: E731

    def formula():
        y = part(LayerNorm(), "norm_attention", x + part(Attention(2), "attention", x, None, mask))
        return part(LayerNorm(), "norm_mlp", y + part(Mlp(12), "mlp", y))

    np.testing.assert_allclose(run(Block(**SIZES), params, x, mask)[0], jit(formula)(), atol=1e-6)


def test_scanned_and_unrolled_agree_with_noise_and_gradients():
    x, mask = inputs()
    keys = example_keys(jax.random.key(2), 3)
    scanned = Transformer(2, **SIZES, dropout=0.3, drop_path=0.3, remat="core")
    unrolled = scanned.clone(scan=False, remat="none")
    params = drawn(scanned, x, mask)
    apart = {f"block_{n}": jax.tree.map(lambda leaf, n=n: leaf[n], params["blocks"]) for n in range(2)}

    def value(module):
        return jit(jax.value_and_grad(lambda p: (module.apply({"params": p}, x, mask, keys) ** 3).sum()))

    (one, grads), (other, each) = value(scanned)(params), value(unrolled)(apart)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    jax.tree.map(
        lambda both, first, second: np.testing.assert_allclose(both, jnp.stack([first, second]), rtol=1e-4, atol=1e-4),
        grads["blocks"],
        each["block_0"],
        each["block_1"],
    )


def test_a_text_encoder_has_no_last_norm_with_post_norm():
    stream = Stream(jnp.zeros((2, 4), jnp.int32), jnp.ones((2, 4), bool))
    names = {
        norm: set(jax.eval_shape(TextEncoder(9, 8, 1, 2, 12, norm=norm).init, jax.random.key(0), stream)["params"])
        for norm in ("pre", "post")
    }
    assert names["pre"] - names["post"] == {"norm"}


def test_an_unknown_norm_is_a_sentence():
    with pytest.raises(UserError, match=r"transformer.norm: 'posd' is unknown. Did you mean 'post'"):
        jax.eval_shape(Block(2, 12, norm="posd").init, jax.random.key(0), inputs()[0])

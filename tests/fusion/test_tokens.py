"""Fusions over tokens from their parts: early, co-attention, bottleneck, cross-modal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.fusion.bottleneck import Bottleneck, BottleneckLayer
from mmjax.fusion.co_attention import CoLayer
from mmjax.fusion.cross_modal import CrossModal
from mmjax.fusion.early import Early
from mmjax.layers.cross_attention import CrossBlock
from mmjax.layers.transformer import Block, Transformer
from tests.fusion.cases import EVERY_SUBSET, WIDTH, case, make_tokens, random_params
from tests.quick import jit, run

TOKENS = make_tokens(EVERY_SUBSET)
SIZES = {"num_heads": 2, "mlp_dim": 12}
RNG = np.random.default_rng(3)


def norm(params, x):
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def random_like(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(0, 0.4, leaf.shape), jnp.float32), shapes)


def states(names=("a", "b", "c")):
    """Returns states [4, N, 8] of modalities; the last example has nothing, the one before it lacks the first."""
    x = {name: jnp.asarray(RNG.normal(size=(4, 2 + place, WIDTH)), jnp.float32) for place, name in enumerate(names)}
    masks = {name: jnp.ones(y.shape[:2], bool).at[3].set(False) for name, y in x.items()}
    return x, masks | {names[0]: masks[names[0]].at[2].set(False)}


def test_early_is_one_transformer_over_a_class_token_and_all_projected_tokens():
    params = case("early").params
    rows, masks = [np.broadcast_to(params["class_token"], (8, 1, WIDTH))], [np.ones((8, 1), bool)]
    for name, stream in TOKENS.items():
        x = np.asarray(stream.x) @ params[f"projections_{name}"]["kernel"] + params[f"embedding_{name}"]
        rows, masks = [*rows, x], [*masks, np.asarray(stream.mask)]
    x, mask = jnp.concatenate(rows, axis=1), np.concatenate(masks, axis=1)
    transformer = Transformer(1, 2, 12, scan=False)
    expected = norm(params["norm"], run(transformer, params["transformer"], x, mask)[:, 0])
    found, _ = case("early")(TOKENS)
    np.testing.assert_allclose(found.fused.pooled[1:], expected[1:], atol=1e-4)
    np.testing.assert_array_equal(found.fused.mask[1:], mask[1:])  # the first example has nothing


def test_co_attention_looks_at_all_the_others_then_at_itself():
    x, masks = states()
    layer = CoLayer(("a", "b", "c"), **SIZES)
    params = random_like(layer, x, masks)
    found, _ = run(layer, params, x, masks)
    context = (jnp.concatenate([x["a"], x["c"]], axis=1), jnp.concatenate([masks["a"], masks["c"]], axis=1))
    y, _ = run(CrossBlock(**SIZES), params["cross_b"], x["b"], context)
    y, _ = run(Block(**SIZES), params["self_b"], y, masks["b"])
    np.testing.assert_allclose(found["b"], y, atol=1e-5)


def test_bottlenecks_are_averaged_over_the_modalities_that_are_present():
    x, masks = states()
    shared = jnp.asarray(RNG.normal(size=(4, 2, WIDTH)), jnp.float32)
    layer = BottleneckLayer(("a", "b", "c"), **SIZES)
    params = random_like(layer, (x, shared), masks)
    (found, after), _ = run(layer, params, (x, shared), masks)
    updates = {}
    for name in x:  # equation 8
        row, mask = jnp.concatenate([shared, x[name]], 1), jnp.concatenate([jnp.ones((4, 2), bool), masks[name]], 1)
        y, _ = run(Block(**SIZES), params[f"block_{name}"], row, mask)
        updates[name] = np.asarray(y[:, :2])
        np.testing.assert_allclose(found[name], y[:, 2:], atol=1e-5)
    a, b, c = updates.values()  # equation 9
    np.testing.assert_allclose(after[:2], (a + b + c)[:2] / 3, atol=1e-5)
    np.testing.assert_allclose(after[2], (b + c)[2] / 2, atol=1e-5)
    np.testing.assert_array_equal(after[3], shared[3])


def test_before_the_fusion_layer_modalities_are_apart():
    """What one modality says reaches the tokens of another through the bottlenecks alone, a layer later."""

    def reaches(depth):
        module = Bottleneck(WIDTH, depth, 2, 12, fusion_layer=1, pool="mean")
        full = {name: TOKENS[name] for name in ("audio", "text")}
        params = random_params(module, full)

        audio = jit(lambda tokens: module.apply({"params": params}, tokens).fused.x[:, :2])
        other = full | {"text": full["text"].replace(x=-full["text"].x)}
        return np.abs(audio(full) - audio(other)).max()

    assert reaches(2) == 0 and reaches(3) > 1e-3


def test_a_fusion_layer_out_of_range_is_a_sentence():
    with pytest.raises(UserError, match="fusion_layer=2 must be at least 0 and below depth=2"):
        jax.eval_shape(Bottleneck(WIDTH, 2, 2, 12, fusion_layer=2).init, jax.random.key(0), TOKENS)
    with pytest.raises(UserError, match=r"Early.pool: 'frist' is unknown. Did you mean 'first'\?"):
        jax.eval_shape(Early(WIDTH, 1, 2, 12, pool="frist").init, jax.random.key(0), TOKENS)


def test_a_directed_pair_of_cross_modal_by_hand():
    tokens = {name: TOKENS[name] for name in ("audio", "text")}
    module = CrossModal(WIDTH, 1, 2, 12, scan=False)
    params = random_params(module, tokens)
    x = {name: stream.x @ params[f"projections_{name}"]["kernel"] for name, stream in tokens.items()}
    x = {name: y + params[f"embedding_{name}"] for name, y in x.items()}
    expected = params["bias"]
    for name, other in (("audio", "text"), ("text", "audio")):
        own, mask = params[f"target_{name}"], np.asarray(tokens[name].mask)
        y, _ = run(CrossBlock(**SIZES), own[f"from_{other}_0"], x[name], (x[other], tokens[other].mask))
        y, _ = run(Block(**SIZES), own["blocks_0"], y, tokens[name].mask)
        last = np.maximum(mask.sum(axis=1) - 1, 0)
        vector = norm(own["norm"], y)[np.arange(8), last] @ own["down"]["kernel"]
        expected = expected + np.where(mask.any(axis=1)[:, None], vector, 0.0)
    found = run(module, params, tokens)
    np.testing.assert_allclose(found.fused.pooled, expected, atol=1e-4)

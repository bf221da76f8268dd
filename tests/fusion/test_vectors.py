"""Fusions over vectors against numpy: late, gated, low-rank tensor, sparse mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.fusion.late import Late
from mmjax.fusion.low_rank import LowRankTensor
from mmjax.fusion.mixture import SparseMixture, load_balance
from tests.fusion.cases import EVERY_SUBSET, SHAPES, WIDTH, case, make_tokens, random_params
from tests.quick import jit, run

TOKENS = make_tokens(EVERY_SUBSET)


def vector(stream):
    """The pooled vector, or the mean of what is not masked, in float64; 0 for a missing modality."""
    if stream.pooled is not None:
        return np.where(np.asarray(stream.mask).any(1, keepdims=True), stream.pooled, 0.0)
    rows = zip(np.asarray(stream.x), np.asarray(stream.mask), strict=True)
    return np.stack([x[mask].mean(0) if mask.any() else 0 * x[0] for x, mask in rows])


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + params.get("bias", 0.0)


def softmax_over(logits, present):
    weights = np.where(present, np.exp(logits), 0.0)
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)


def test_late_weights_are_renormalised_over_those_present():
    params = case("late").params
    found, _ = case("late")(TOKENS)
    logits = np.array([float(params[f"logit_{name}"]) for name in SHAPES])
    expected = softmax_over(np.broadcast_to(logits, (8, 3)), EVERY_SUBSET)
    pooled = 0
    for place, (name, stream) in enumerate(TOKENS.items()):
        np.testing.assert_allclose(found.weights[name], expected[:, place], atol=1e-6)
        np.testing.assert_array_equal(found.votes.weights[name], found.weights[name])
        x = dense(params[f"projections_{name}"], vector(stream))
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        x = x * params[f"norm_{name}"]["scale"] + params[f"norm_{name}"]["bias"]
        np.testing.assert_allclose(found.votes.vectors[name], np.where(EVERY_SUBSET[:, [place]], x, 0), atol=1e-4)
        pooled = pooled + expected[:, [place]] * x
    np.testing.assert_allclose(found.fused.pooled, pooled, atol=1e-4)


def test_late_mean_is_one_over_the_number_present_and_the_rule_is_passed_on():
    module = Late(WIDTH, rule="product")
    found = run(module, random_params(module, TOKENS), TOKENS)
    count = np.maximum(EVERY_SUBSET.sum(axis=1), 1)
    for place, name in enumerate(SHAPES):
        np.testing.assert_allclose(found.weights[name], EVERY_SUBSET[:, place] / count, atol=1e-6)
    assert found.votes.rule == "product"
    with pytest.raises(UserError, match=r"Late.rule: 'mixtur' is unknown. Did you mean 'mixture'\?"):
        jax.eval_shape(Late(WIDTH, rule="mixtur").init, jax.random.key(0), TOKENS)


@pytest.mark.parametrize("name", ["gated", "gated_unit"])
def test_gates_are_of_the_content_of_all(name):
    params = case(name).params
    kernel = {"gated": "logits", "gated_unit": "up"}[name]
    logits = sum(dense(params[f"gates_{key}"][kernel], vector(stream)) for key, stream in TOKENS.items())
    logits = logits.reshape(8, 3, -1) + params["bias"]
    there = EVERY_SUBSET[..., None]
    gates = softmax_over(logits, there) if name == "gated" else there / (1 + np.exp(-logits))
    hidden = [np.tanh(dense(params[f"projections_{key}"], vector(stream))) for key, stream in TOKENS.items()]
    found, _ = case(name)(TOKENS)
    np.testing.assert_allclose(found.fused.pooled, (gates * np.stack(hidden, axis=1)).sum(axis=1), atol=1e-5)
    for place, key in enumerate(SHAPES):
        np.testing.assert_allclose(found.weights[key], gates[:, place].mean(axis=-1), atol=1e-5)


@pytest.mark.parametrize("widths", [(2, 3), (2, 3, 2)])
def test_low_rank_equals_the_explicit_tensor(widths):
    shapes = {f"m{place}": (2, width) for place, width in enumerate(widths)}
    present = np.arange(4)[:, None] >> np.arange(len(widths)) & 1 == 0  # the first example has all
    tokens = make_tokens(present, shapes=shapes)
    module = LowRankTensor(width=5, rank=3)
    params = random_params(module, tokens)
    weights, outer = 0, np.ones((4, 1))
    for rank in range(3):
        term = np.ones((1, 5))
        for name, (_, width) in shapes.items():
            kernel = np.asarray(params[f"projections_{name}"]["kernel"], np.float64).reshape(width, 3, 5)[:, rank]
            factor = np.concatenate([kernel, params[f"one_{name}"][rank][None]])  # [width + 1, 5]
            term = np.einsum("ad,bd->abd", term, factor).reshape(-1, 5)
        weights = weights + term  # [prod of (width + 1), 5]
    for stream in tokens.values():
        extended = np.concatenate([vector(stream), np.ones((4, 1))], axis=1)
        outer = np.einsum("ba,bc->bac", outer, extended).reshape(4, -1)
    found = run(module, params, tokens)
    np.testing.assert_allclose(found.fused.pooled, outer @ weights, atol=1e-5)


def test_low_rank_starts_with_missing_modalities_as_the_neutral_element():
    module = LowRankTensor(WIDTH, rank=2)
    params = jit(module.init)(jax.random.key(0), TOKENS)["params"]
    found = run(module, params, {"image": TOKENS["image"]}).fused.pooled
    expected = dense(params["projections_image"], vector(TOKENS["image"])).reshape(8, 2, WIDTH).sum(axis=1) + 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mixture", "mixture_of_tokens"])
def test_mixture_by_hand(name):
    """Top-k gates, weights by the probability of what was chosen, the published balance."""
    case_, tokens = case(name), {key: TOKENS[key] for key in SHAPES}
    params, k = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), case_.params), case_.module.top_k
    found, _ = case_(tokens)
    if name == "mixture":
        items = [dense(params[f"projections_{key}"], vector(stream))[:, None] for key, stream in tokens.items()]
        masks = [EVERY_SUBSET[:, [place]] for place in range(3)]
    else:
        items = [
            dense(params[f"projections_{key}"], np.asarray(s.x)) + params[f"embedding_{key}"]
            for key, s in tokens.items()
        ]
        masks = [np.asarray(stream.mask) for stream in tokens.values()]
    owner = np.concatenate([np.full(mask.shape[1], place) for place, mask in enumerate(masks)])
    x, mask = np.concatenate(items, axis=1), np.concatenate(masks, axis=1)
    up, down = params["experts"]["up"], params["experts"]["down"]
    counts, mean, rows = np.zeros(4), np.zeros(4), np.zeros((8, WIDTH))
    shares = np.zeros((8, 3))
    for b, t in np.argwhere(mask):
        p = np.exp(dense(params["router"], x[b, t]))
        p /= p.sum()
        y = x[b, t]
        for e in np.argsort(-p)[:k]:
            hidden = x[b, t] @ up["kernel"][e] + up["bias"][e]
            hidden = np.asarray(jax.nn.gelu(hidden, approximate=False))
            y = y + p[e] * (hidden @ down["kernel"][e] + down["bias"][e])
            counts[e] += 1
            shares[b, owner[t]] += p[e]
            mass = np.sort(p)[-k:].sum()
        mean += p
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-6) * params["norm"]["scale"] + params["norm"]["bias"]
        rows[b] += mass * y
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1e-30)
    np.testing.assert_allclose(found.fused.pooled, rows / total, atol=1e-4)
    for place, key in enumerate(SHAPES):
        np.testing.assert_allclose(found.weights[key], shares[:, place] / total[:, 0], atol=1e-5)
    published = 4 * np.sum(counts / counts.sum() * mean / mask.sum())
    assert found.penalties["balance"][0] == 0  # the example without any modality, which no loss counts
    np.testing.assert_allclose(found.penalties["balance"][1:].mean(), 0.01 * published, rtol=1e-4)


def test_balance_is_one_when_uniform_and_the_number_of_experts_when_collapsed():
    mask = jnp.ones((4, 3), bool).at[3].set(False)
    place = jnp.arange(12).reshape(4, 3) % 3
    uniform = jnp.full((4, 3, 3), 1 / 3)
    balance = jit(load_balance)
    found = balance(uniform, jax.nn.one_hot(place, 3, dtype=bool), mask)
    np.testing.assert_allclose(found, [1, 1, 1, 0], rtol=1e-6)  # the mean over the rows with items is 1
    one = jax.nn.one_hot(jnp.zeros((4, 3), int), 3)
    np.testing.assert_allclose(balance(one, one.astype(bool), mask)[:3].mean(), 3, rtol=1e-6)
    gradient = jit(jax.grad(lambda p: load_balance(p, one.astype(bool), mask)[:3].mean()))(one)
    np.testing.assert_allclose(gradient[0], 3 / 9 * one[0], rtol=1e-6)  # through the probabilities alone
    assert np.isfinite(balance(one, one.astype(bool), mask & False)).all()


def test_empty_examples_do_not_change_the_balance_of_the_others():
    rng = np.random.default_rng(0)
    probabilities = jax.nn.softmax(jnp.asarray(rng.normal(size=(6, 3, 4)), jnp.float32))
    chosen = probabilities >= probabilities.max(axis=-1, keepdims=True)
    mask = jnp.asarray(rng.random((6, 3)) < 0.7).at[:3, 0].set(True).at[3:].set(False)
    balance = jit(load_balance)
    found, alone = balance(probabilities, chosen, mask), balance(probabilities[:3], chosen[:3], mask[:3])
    np.testing.assert_allclose(found, [*alone, 0, 0, 0], rtol=1e-6)
    share = np.asarray(chosen)[np.asarray(mask)].mean(axis=0) @ np.asarray(probabilities)[np.asarray(mask)].mean(axis=0)
    np.testing.assert_allclose(found[:3].mean(), 4 * share, rtol=1e-6)


def test_a_top_k_above_the_number_of_experts_is_a_sentence():
    with pytest.raises(UserError, match="top_k=5 must be at most num_experts=4"):
        jax.eval_shape(SparseMixture(WIDTH, mlp_dim=4, top_k=5).init, jax.random.key(0), TOKENS)

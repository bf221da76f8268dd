"""What stands in for a missing modality: learned tokens, ShaSpec's shared features, and hallucinated ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Tokens
from mmjax.fusion.hallucination import Hallucination
from mmjax.fusion.missing import LearnedTokens
from mmjax.fusion.shared_specific import SharedSpecific, alignment
from mmjax.layers.mlp import Mlp
from tests.fusion.cases import EVERY_SUBSET, SHAPES, WIDTH, make_tokens, random_params
from tests.fusion.test_vectors import dense, vector
from tests.quick import jit

TOKENS = make_tokens(EVERY_SUBSET)
MODULES = {
    "learned": LearnedTokens(num_tokens=3),
    "shared": SharedSpecific(WIDTH, mlp_dim=12),
    "hallucinated": Hallucination(WIDTH, mlp_dim=12, weight=0.5),
}
both = pytest.mark.parametrize("name", MODULES)


@functools.lru_cache
def case(name):
    """Returns (parameters, compiled forward)."""
    module = MODULES[name]
    params = random_params(module, TOKENS)
    return params, jit(lambda params, tokens: module.apply({"params": params}, tokens))


def rows_of(stream, b):
    return np.asarray(stream.x)[b][np.asarray(stream.mask)[b]]


@both
def test_all_modalities_are_there_unless_none_was(name):
    params, run = case(name)
    filled, penalties = run(params, TOKENS)
    assert list(filled) == sorted(SHAPES)
    for stream in filled.values():
        np.testing.assert_array_equal(stream.present, EVERY_SUBSET.any(axis=1))
        assert np.isfinite(stream.x).all() and np.isfinite(0 if stream.pooled is None else stream.pooled).all()
    assert all(np.isfinite(value).all() and value.shape == (8,) for value in penalties.values())


@both
@pytest.mark.parametrize("given", [("image",), ("audio", "text")])
def test_absent_is_missing_from_every_example(name, given):
    params, run = case(name)
    tokens = make_tokens(np.isin(list(SHAPES), given) & EVERY_SUBSET)
    expected, penalties = run(params, tokens)
    found, others = run(params, {key: tokens[key] for key in given})
    assert list(found) == list(expected)
    for key in expected:
        for b in range(8):
            np.testing.assert_allclose(rows_of(found[key], b), rows_of(expected[key], b), atol=1e-5)
        if expected[key].pooled is not None:
            there = EVERY_SUBSET[:, np.isin(list(SHAPES), given)].any(axis=1)
            np.testing.assert_allclose(found[key].pooled[there], expected[key].pooled[there], atol=1e-5)
    for key in penalties:
        np.testing.assert_allclose(others[key], penalties[key], atol=1e-6)


@both
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_and_reach_what_is_learned(name, dtype):
    module, (params, _) = MODULES[name], case(name)
    tokens = make_tokens(EVERY_SUBSET, dtype=dtype)

    def loss(params):
        filled, penalties = module.apply({"params": params}, tokens)
        values = [jnp.where(stream.mask[..., None], stream.x, 0).astype(jnp.float32) for stream in filled.values()]
        values += [stream.pooled for stream in filled.values() if stream.pooled is not None] + list(penalties.values())
        return sum(jnp.sum(jnp.sin(value)) for value in values)

    gradients = jit(jax.grad(loss))(params)
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


def test_learned_tokens_stand_only_where_something_is_missing():
    params, run = case("learned")
    filled, _ = run(params, TOKENS)
    for place, (name, stream) in enumerate(TOKENS.items()):
        for b in range(1, 8):
            there = EVERY_SUBSET[b, place]
            np.testing.assert_array_equal(
                rows_of(filled[name], b), rows_of(stream, b) if there else params[f"tokens_{name}"]
            )
        assert (stream.pooled is None) == (filled[name].pooled is None)
    lacks = ~EVERY_SUBSET[1:, 1]
    expected = np.where(lacks[:, None], params["vector_image"], TOKENS["image"].pooled[1:])
    np.testing.assert_array_equal(filled["image"].pooled[1:], expected)
    with pytest.raises(UserError, match="num_tokens=0 must be at least 1"):
        jax.eval_shape(LearnedTokens(0).init, jax.random.key(0), TOKENS)


def test_shared_features_stand_in_and_penalties_by_hand():
    params, run = case("shared")
    filled, penalties = run(params, TOKENS)

    def mlp(name, x):
        return np.asarray(Mlp(12).apply({"params": params[name]}, x), np.float64)

    projected = [dense(params[f"projections_{name}"], vector(stream)) for name, stream in TOKENS.items()]
    shared = [mlp("shared", x) for x in projected]
    specific = [mlp(f"specific_{name}", x) for name, x in zip(SHAPES, projected, strict=True)]
    full = [s + dense(params["down"], np.concatenate([s, r], axis=1)) for s, r in zip(shared, specific, strict=True)]
    for b in range(1, 8):
        present = np.flatnonzero(EVERY_SUBSET[b])
        mean = np.mean([shared[m][b] for m in present], axis=0)
        for m, name in enumerate(SHAPES):
            expected = full[m][b] if m in present else mean
            np.testing.assert_allclose(filled[name].pooled[b], expected, atol=1e-4)
            np.testing.assert_allclose(filled[name].x[b, 0], expected, atol=1e-4)
        pairs = [np.abs(shared[i][b] - shared[j][b]).mean() for i in present for j in present if i < j]
        np.testing.assert_allclose(penalties["alignment"][b], 0.1 * np.mean(pairs or [0]), atol=1e-5)
        logits = [dense(params["classifier"], specific[m][b]) for m in present]
        told = [np.log(np.exp(z).sum()) - z[m] for z, m in zip(logits, present, strict=True)]
        np.testing.assert_allclose(penalties["modality"][b], 0.02 * np.mean(told), atol=1e-5)
    assert penalties["alignment"][0] == 0 and penalties["modality"][0] == 0


def test_hallucinations_and_their_penalty_by_hand():
    params, run = case("hallucinated")
    filled, penalties = run(params, TOKENS)
    vectors = {name: vector(stream) for name, stream in TOKENS.items()}
    for b in range(8):
        present = [name for place, name in enumerate(SHAPES) if EVERY_SUBSET[b, place]]
        errors = []
        for name in SHAPES:
            others = [dense(params[f"projections_{key}"], vectors[key][b]) for key in present if key != name]
            if not others:
                np.testing.assert_array_equal(filled[name].mask[b], TOKENS[name].mask[b])
                continue
            hidden = Mlp(12).apply({"params": params[f"mlp_{name}"]}, np.mean(others, axis=0))
            guess = dense(params[f"guess_{name}"], np.asarray(hidden, np.float64))
            if name in present:
                errors.append(np.square(guess - vectors[name][b]).mean())
                np.testing.assert_array_equal(rows_of(filled[name], b), rows_of(TOKENS[name], b))
            else:
                np.testing.assert_allclose(rows_of(filled[name], b), guess[None], atol=1e-4)
        np.testing.assert_allclose(penalties["hallucination"][b], 0.5 * np.mean(errors or [0]), rtol=1e-4)


def test_alignment_is_zero_for_equal_features_and_for_one_modality():
    same = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (2, 1, 5)), (2, 3, 5))
    np.testing.assert_array_equal(jit(alignment)(same, jnp.ones((2, 3), bool)), [0, 0])
    np.testing.assert_array_equal(jit(alignment)(same[:, :1], jnp.ones((2, 1), bool)), [0, 0])


@both
def test_garbage_in_what_is_missing_reaches_nothing(name):
    params, run = case(name)

    def garbage(stream):
        x = jnp.where(stream.mask[..., None], stream.x, 1e30)
        pooled = stream.pooled if stream.pooled is None else jnp.where(stream.present[:, None], stream.pooled, 1e30)
        return Tokens(x, stream.mask, pooled)

    expected, penalties = run(params, TOKENS)
    found, others = run(params, {key: garbage(stream) for key, stream in TOKENS.items()})
    for key in expected:
        for b in range(1, 8):
            np.testing.assert_array_equal(rows_of(found[key], b), rows_of(expected[key], b))
    for key in penalties:
        np.testing.assert_array_equal(others[key], penalties[key])


@pytest.mark.parametrize("name", ["learned", "hallucinated"])
def test_what_is_hidden_stays_hidden_where_the_modality_is_there(name):
    params, run = case(name)
    hidden = {key: stream.replace(hidden=stream.mask) for key, stream in TOKENS.items()}
    filled, _ = run(params, hidden)
    for key, stream in filled.items():
        size = TOKENS[key].mask.shape[1]
        np.testing.assert_array_equal(stream.hidden[:, :size], TOKENS[key].mask)
        assert not np.asarray(stream.hidden)[:, size:].any()


def test_one_feature_a_modality_has_no_hidden_tokens():
    params, run = case("shared")
    tokens = TOKENS | {"image": TOKENS["image"].replace(hidden=TOKENS["image"].mask)}
    with pytest.raises(UserError, match="nothing can predict the hidden ones of image"):
        run(params, tokens)

"""Hard negatives: never a match, the likelier the more similar, within their block, and the example's own draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.evaluation.evaluator import unit
from mmjax.layers.dropout import example_keys, fold
from mmjax.losses.hard_negatives import hard_negatives, take_places

N, S = 64, 8
RNG = np.random.default_rng(0)
A, B = (unit(RNG.normal(size=(N, 5))) for _ in range(2))
GROUP = (np.arange(N) // 3).astype(np.int32)  # of three, some over the edge of a block
GROUP[-S:] = 99  # a block of one group
MASK = np.arange(N) % 5 != 0


@jax.jit
def draw(rng, a=A, b=B, group=GROUP, mask=MASK):
    return hard_negatives(a, b, logit_scale=10.0, group=group, mask=mask, rng=rng, block_size=S)


KEYS = example_keys(jax.random.key(0), N)


def test_a_negative_is_never_a_match_nor_missing_and_of_the_same_block():
    for number in range(40):
        place, found = (np.asarray(x) for x in draw(fold(KEYS, number)))
        row = np.arange(N) // S * S + place  # of the whole batch
        assert ((place >= 0) & (place < S)).all()
        assert (GROUP[row] != GROUP)[found].all() and MASK[row][found].all()
        np.testing.assert_array_equal(row[~found], np.arange(N)[~found])
        assert not found[~MASK].any() and not found[-S:].any() and found[MASK][:-S].all()


def test_the_draw_is_in_proportion_to_the_exponent_of_the_similarity():
    one_block = {"a": A[:S], "b": B[:S], "group": np.arange(S, dtype=np.int32), "mask": np.ones(S, bool)}
    options = {"logit_scale": 2.0, "block_size": S}
    draws = jax.jit(jax.vmap(lambda keys: hard_negatives(**one_block, **options, rng=keys)[0]))(
        jax.vmap(lambda key: example_keys(key, S))(jax.random.split(jax.random.key(1), 20_000))
    )  # [20,000, S]
    weights = np.exp(2.0 * A[:S] @ B[:S].T) * (1 - np.eye(S))
    expected = weights / weights.sum(axis=1, keepdims=True)
    found = np.stack([np.bincount(column, minlength=S) for column in np.asarray(draws).T]) / 20_000
    assert np.abs(found - expected).max() < 4.5 * np.sqrt(0.25 / 20_000)


def test_blocks_know_nothing_of_one_another_and_nothing_is_n_by_n():
    whole, _ = draw(KEYS)
    part, _ = hard_negatives(A[:S], B[:S], logit_scale=10.0, group=GROUP[:S], mask=MASK[:S], rng=KEYS[:S], block_size=S)
    np.testing.assert_array_equal(whole[:S], part)
    jaxpr = str(jax.make_jaxpr(draw)(KEYS))
    assert f"[{N // S},{S},{S}]" in jaxpr and f"{N},{N}]" not in jaxpr


def test_no_gradient_flows_into_the_embeddings_and_garbage_stays_where_it_is():
    garbage = np.where(MASK[:, None], A, np.nan)
    np.testing.assert_array_equal(draw(KEYS)[0], draw(KEYS, a=garbage)[0])
    grad = jax.grad(lambda a: jnp.sum(take_places(a, draw(KEYS, a=a)[0], S)[:, 0]))(jnp.asarray(A))
    assert np.asarray(grad[:, 1:]).max() == 0 and grad[:, 0].sum() == N  # of the gather alone


def test_take_places_moves_whole_rows():
    place = RNG.integers(0, S, N)
    tree = {"x": np.arange(N * 6.0).reshape(N, 2, 3), "mask": MASK}
    found = take_places(tree, place, S)
    row = np.arange(N) // S * S + place
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[row]), found, tree)


@pytest.mark.parametrize("size", [1, 7])
def test_a_block_that_does_not_fit_is_a_sentence(size):
    with pytest.raises(UserError, match=f"blocks of {size} rows do not fill the 64"):
        hard_negatives(A, B, logit_scale=1.0, group=GROUP, mask=MASK, rng=KEYS, block_size=size)

"""Shapley values: efficiency, symmetry, nothing for a player that adds nothing, estimates near the exact ones."""

import itertools

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.subsets import coalitions
from mmjax.evaluation.shapley import exact_shapley, permutation_shapley, shares, split


def game(players, seed=0, examples=3):
    """Returns a value function with a random score for every coalition, [K, P] -> [K, examples]."""
    table = np.random.default_rng(seed).normal(size=(2**players, examples)).astype(np.float32)
    return lambda keep: table[(keep * 2 ** np.arange(players)).sum(axis=1)]


def by_orders(value, players):
    """The mean of what a player adds over all P! orders."""
    total = 0
    for order in itertools.permutations(range(players)):
        keep, gains = np.zeros((1, players), bool), {}
        for player in order:
            before = value(keep)[0]
            keep[0, player] = True
            gains[player] = value(keep)[0] - before
        total = total + np.stack([gains[player] for player in range(players)])
    return total / len(list(itertools.permutations(range(players))))


@pytest.mark.parametrize("players", [1, 2, 3, 4])
def test_exact_is_the_mean_over_all_orders_and_sums_to_the_whole(players):
    value = game(players)
    found = exact_shapley(value, players)
    np.testing.assert_allclose(found, by_orders(value, players), atol=1e-6)
    whole = value(np.ones((1, players), bool))[0] - value(np.zeros((1, players), bool))[0]
    np.testing.assert_allclose(found.sum(axis=0), whole, atol=1e-5)


def test_symmetric_players_are_equal_and_one_that_adds_nothing_has_nothing():
    def value(keep):  # players 0 and 1 count alike and together, 3 never
        return (keep[:, 0] & keep[:, 1]) * 2.0 + keep[:, 2] * (1 + keep[:, 0] + keep[:, 1])

    found = exact_shapley(value, 4)
    assert found[0] == pytest.approx(found[1], abs=1e-12) and found[3] == pytest.approx(0, abs=1e-12)
    estimate = permutation_shapley(value, 4, permutations=400)
    np.testing.assert_allclose(estimate, found, atol=0.15)
    assert estimate[3] == 0


def test_the_estimate_is_exact_for_a_sum_and_always_sums_to_the_whole():
    weights = np.random.default_rng(1).normal(size=(12, 2))
    np.testing.assert_allclose(permutation_shapley(lambda keep: keep @ weights, 12, permutations=1), weights)
    value = game(5)
    found = permutation_shapley(value, 5, permutations=3)
    whole = value(np.ones((1, 5), bool))[0] - value(np.zeros((1, 5), bool))[0]
    np.testing.assert_allclose(found.sum(axis=0), whole, atol=1e-5)


def test_forwards_and_backwards_is_exact_for_two_at_a_time():
    """Of scores that have terms of one and two players only, an order and its reverse give the exact values."""
    pairs = np.random.default_rng(2).normal(size=(4, 4))

    def value(keep):
        return np.einsum("ki,ij,kj->k", keep, pairs, keep)

    np.testing.assert_allclose(permutation_shapley(value, 4, permutations=2), exact_shapley(value, 4), atol=1e-9)


def test_more_permutations_are_nearer():
    value = game(4)
    errors = [np.abs(permutation_shapley(value, 4, n) - exact_shapley(value, 4)).mean() for n in (2, 600)]
    assert errors[1] < 0.08 < errors[0]


def test_shares_by_modality():
    values = split(np.array([[1.0], [-1.0], [6.0]]), {"image": 2, "text": 1})
    assert {name: part.ravel().tolist() for name, part in values.items()} == {"image": [1, -1], "text": [6]}
    found = shares(values)
    assert found["image"][0] == 0.25 and found["text"][0] == 0.75
    assert shares({"a": np.zeros((1, 2)), "b": np.zeros((3, 2))})["a"].tolist() == [0, 0]


def test_coalitions_and_errors():
    assert coalitions(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]
    with pytest.raises(UserError, match="5 players; expected 1 to 4"):
        exact_shapley(game(5), 5)
    with pytest.raises(UserError, match=r"permutation_shapley\.permutations=0 must be at least 1"):
        permutation_shapley(game(2), 2, 0)

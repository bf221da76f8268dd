"""Shapley values: what each player adds to a score, on average over the orders in which players may come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmjax.core.errors import UserError, at_least
from mmjax.core.subsets import coalitions, shapley_matrix

Value = Callable[[np.ndarray], np.ndarray]
"""Coalitions [K, P] bool -> their scores [K, ...] float, the same trailing axes (examples) for all."""

MOST_PLAYERS = 4
"""For exact values, 2^4 coalitions."""


def exact_shapley(value: Value, players: int) -> np.ndarray:
    """Returns the Shapley values [P, ...] float64; they sum to value(all) - value(none).

    Args:
      value: asked once, for all 2^P coalitions.
      players: P.

    Raises:
      UserError: more than 4 players, or none.
    """
    if not 1 <= players <= MOST_PLAYERS:
        raise UserError(
            f"exact_shapley: {players} players; expected 1 to {MOST_PLAYERS}. For more see permutation_shapley."
        )
    found = np.asarray(value(coalitions(players)), np.float64)  # [2^P, ...]
    return np.tensordot(shapley_matrix(players), found, axes=1)


def permutation_shapley(value: Value, players: int, permutations: int = 8, seed: int = 0) -> np.ndarray:
    """Returns estimates [P, ...] float64 of Shapley values, which sum to value(all) - value(none) exactly.

    Players join one by one in random orders; each order is taken forwards and backwards.

    Args:
      value: asked once an order, for the P + 1 coalitions on its way.
      players: P.
      permutations: how many orders, half of them drawn.
      seed: of the draw; all examples have the same orders.

    Raises:
      UserError: no player, or no permutation.

    References:
      Castro et al., Polynomial calculation of the Shapley value based on sampling, 2009, section 3; Mitchell et al.,
      Sampling Permutations for Shapley Value Estimation, 2022, section 4.1 (antithetic orders).
    """
    at_least(1, "permutation_shapley", players=players, permutations=permutations)
    rng = np.random.default_rng(seed)
    drawn = (rng.permutation(players) for _ in itertools.count())
    orders = itertools.islice((order for each in drawn for order in (each, each[::-1])), permutations)
    found = []
    for order in orders:
        place = np.argsort(order)  # of each player in the order
        on_way = place < np.arange(players + 1)[:, None]  # [P + 1, P]
        found.append(np.diff(np.asarray(value(on_way), np.float64), axis=0)[place])  # [P, ...]
    return np.mean(found, axis=0)


def shares(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns modality -> [...] float64: how much each counts, whatever its sign; the shares sum to 1, or all are 0.

    Args:
      values: modality -> Shapley values [P_m, ...] of its parts (P_m = 1: of the modality itself).

    References:
      Parcalabescu & Frank, MM-SHAP: A Performance-agnostic Metric for Measuring Multimodal Contributions in Vision and
      Language Models and Tasks, 2023, equations 2 and 3.
    """
    sizes = {name: np.abs(np.asarray(value)).sum(axis=0) for name, value in values.items()}
    total = sum(sizes.values())
    return {name: size / np.where(total > 0, total, 1.0) for name, size in sizes.items()}


def split(values: np.ndarray, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns modality -> [P_m, ...] of values [P, ...], the parts of one modality after those of another."""
    ends: Sequence[int] = np.cumsum(list(counts.values()))
    return dict(zip(counts, np.split(values, ends[:-1]), strict=True))

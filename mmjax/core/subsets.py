"""Subsets of the modalities: which there are, a batch that has no others, and what each adds on average."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable

import numpy as np

from mmjax.core.types import Batch


def coalitions(players: int) -> np.ndarray:
    """Returns [2^P, P] bool: every coalition of P players, none first and all last."""
    return np.arange(2**players)[:, None] >> np.arange(players) & 1 == 1


def shapley_matrix(players: int) -> np.ndarray:
    """Returns [P, 2^P] float64, which maps the scores of all `coalitions` to Shapley values.

    phi_p = sum over coalitions S without p of |S|! (P - |S| - 1)! / P! (value(S and p) - value(S)).

    References:
      Shapley, A Value for n-Person Games, 1953, equation 13.
    """
    member = coalitions(players).T  # [P, 2^P]
    others = member.sum(axis=0) - member  # |S|
    weights = np.array([1 / (players * math.comb(players - 1, size)) for size in range(players)])[others]
    return np.where(member, weights, -weights)


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the 2^M - 1 non-empty subsets of M modalities, the small ones first."""
    names = list(names)
    return [part for size in range(1, len(names) + 1) for part in itertools.combinations(names, size)]


def subset_name(part: Iterable[str]) -> str:
    """Returns 'image+text' for a subset."""
    return "+".join(part)


def keep_only(batch: Batch, names: Collection[str]) -> Batch:
    """Returns batch with every modality outside of names missing from every example; all shapes stay."""
    streams = {
        name: stream if name in names else stream.replace(mask=stream.mask & False)
        for name, stream in batch.streams.items()
    }
    return batch.replace(streams=streams)

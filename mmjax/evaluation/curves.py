"""Deletion and insertion: how a score falls as the most relevant parts are left out, and rises as they come first."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.core.errors import at_least
from mmjax.evaluation.shapley import Value


@dataclasses.dataclass(frozen=True)
class Curve:
    """A score over the share of parts that were deleted, or inserted.

    Attributes:
      share: [S + 1] float64, from 0 to 1.
      score: [S + 1] float64.
    """

    share: np.ndarray
    score: np.ndarray

    @property
    def area(self) -> float:
        """Under the curve, by the trapezoidal rule: small is good for deletion, large for insertion."""
        return float(np.trapezoid(self.score, self.share))


def deletion(value: Value, relevancy: np.ndarray, there: np.ndarray | None = None, steps: int = 10) -> Curve:
    """Returns the curve of the score as parts are left out, the most relevant first.

    Args:
      value: coalitions [K, P] bool -> scores [K] of one example; asked once.
      relevancy: [P] float; where it is equal, the part that comes first goes first.
      there: [P] bool, the parts that exist; all by default.
      steps: S, from all parts to none.

    References:
      Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018, section 4.1.
    """
    return _curve(value, relevancy, there, steps, insert=False)


def insertion(value: Value, relevancy: np.ndarray, there: np.ndarray | None = None, steps: int = 10) -> Curve:
    """Returns the curve of the score as parts come to nothing, the most relevant first; see `deletion`."""
    return _curve(value, relevancy, there, steps, insert=True)


def _curve(value: Value, relevancy: np.ndarray, there: np.ndarray | None, steps: int, insert: bool) -> Curve:
    at_least(1, "deletion and insertion", steps=steps)
    relevancy = np.asarray(relevancy, np.float64)
    there = np.ones(len(relevancy), bool) if there is None else np.asarray(there, bool)
    order = np.argsort(np.where(there, -relevancy, np.inf), kind="stable")  # [P]
    rank = np.argsort(order)  # [P], those that do not exist last
    share = np.linspace(0, 1, steps + 1)
    first = rank < np.round(share * there.sum())[:, None]  # [S + 1, P]
    keep = (first if insert else ~first) & there
    return Curve(share, np.asarray(value(keep), np.float64))

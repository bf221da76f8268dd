"""How good predictions are, with every subset of the modalities: classification and regression."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, one_of
from mmjax.core.optional import optional
from mmjax.core.subsets import keep_only, subset_name, subsets
from mmjax.core.types import Array, Batch
from mmjax.evaluation.evaluator import Embed, Embedded, collect

ALL = "all"
"""The subset of which no modality is removed."""


@dataclasses.dataclass(frozen=True)
class SubsetEvaluator(abc.ABC):
    """What both evaluators share: predictions of a head, with all modalities and with those of each subset only.

    Attributes:
      head: decoder of the model.
      target: in `Batch.targets`.
      by_subset: also evaluate with every non-empty subset of the modalities, the others removed; an example counts
        where it has any of them.
    """

    head: str = "label"
    target: str = "label"
    by_subset: bool = True

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: Any) -> dict[str, float]:
        """Returns 'SUBSET/metric' -> value, SUBSET being 'image', 'image+text', ..., and 'all' for all modalities.

        Raises:
          UserError: the model has no such head, the batches no such target, or nothing is left to judge.
        """
        del extra
        found = subset_predictions(embed, batches, self.head, self.by_subset)
        return judged(found, self.target, self._has_label, self._metrics)

    @abc.abstractmethod
    def _has_label(self, labels: np.ndarray) -> np.ndarray:
        """Returns [N] bool."""

    @abc.abstractmethod
    def _metrics(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Returns the metrics of predictions [N, K] of labels [N]."""


@dataclasses.dataclass(frozen=True)
class ClassificationEvaluator(SubsetEvaluator):
    """`accuracy`, `weighted_f1` and `macro_f1` of logits [B, K] against classes [B], by scikit-learn."""

    def _has_label(self, labels: np.ndarray) -> np.ndarray:
        return labels >= 0

    def _metrics(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return classification_metrics(predicted, labels)


@dataclasses.dataclass(frozen=True)
class RegressionEvaluator(SubsetEvaluator):
    """`mean_absolute_error` and Pearson's `correlation` of values [B, 1] against targets [B]."""

    def _has_label(self, labels: np.ndarray) -> np.ndarray:
        return np.isfinite(labels)

    def _metrics(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        if predicted.size != len(labels):
            raise UserError(f"evaluation: {self.head!r} predicts {list(predicted.shape)}; expected [examples, 1].")
        return regression_metrics(predicted.reshape(len(labels)), labels)


def predictions(
    embed: Embed, batches: Iterable[Batch], head: str, variants: Mapping[str, Callable[[Batch], Batch]]
) -> dict[str, Embedded]:
    """Returns variant -> predictions of the head over what it makes of each batch; batches are read once.

    Raises:
      UserError: the model has no such head, or there are no batches.
    """

    def answers(batch: Batch) -> dict[str, Array]:
        return {label: _one(embed(variant(batch)), head) for label, variant in variants.items()}

    return collect(answers, batches, list(variants))


def judged(
    found: Mapping[str, Embedded],
    target: str,
    has_label: Callable[[np.ndarray], np.ndarray],
    metrics: Callable[[np.ndarray, np.ndarray], Mapping[str, float]],
) -> dict[str, float]:
    """Returns 'VARIANT/metric' -> value, of the variants in which an example has a label.

    Raises:
      UserError: there is no such target, or no example has one.
    """
    table = {}
    for variant, answers in found.items():
        labels = answers.target(target)
        if labels.ndim != 1:
            raise UserError(f"evaluation: the target {target!r} is {list(labels.shape)}; expected [examples].")
        keep = has_label(labels)
        if keep.any():
            values = metrics(answers.values[keep], labels[keep])
            table |= {f"{variant}/{key}": value for key, value in values.items()}
    if not table:
        raise UserError(f"evaluation: no example has a target {target!r} and a modality.")
    return table


def subset_predictions(embed: Embed, batches: Iterable[Batch], head: str, by_subset: bool) -> dict[str, Embedded]:
    """Returns subset -> predictions of the head over a data set, in the order of the table.

    An example that has none of a subset's modalities is left out of that subset.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise UserError("evaluation: the data gave no batches; it needs at least one record.")
    names = list(first.streams)
    parts = {subset_name(part): part for part in subsets(names)[:-1]} if by_subset else {}
    parts[ALL] = tuple(names)

    def answer(batch: Batch, part: tuple[str, ...]) -> tuple[Array, Array]:
        there = functools.reduce(operator.or_, (batch.streams[name].present for name in part))
        return _one(embed(keep_only(batch, part)), head), there

    def answers(batch: Batch) -> dict[str, tuple[Array, Array]]:
        return {label: answer(batch, part) for label, part in parts.items()}

    return collect(answers, itertools.chain([first], batches), list(parts))


def _one(answers: Any, head: str) -> Array:
    one_of(head, answers, "evaluation: the head")
    return answers[head]


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns `accuracy`, `weighted_f1` and `macro_f1` of logits [N, K], or classes [N], against classes [N]."""
    if labels.dtype.kind not in "iuO" and labels.dtype.kind != "U":
        raise UserError(f"evaluation: classes are whole numbers or names, and the target is {labels.dtype}.")
    predicted = predicted.argmax(axis=-1) if predicted.ndim == 2 else predicted
    metrics = sklearn("metrics")
    return {
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "weighted_f1": float(metrics.f1_score(labels, predicted, average="weighted", zero_division=0)),
        "macro_f1": float(metrics.f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def regression_metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns `mean_absolute_error` and Pearson's `correlation` (0 where either is constant) of [N] against [N]."""
    constant = min(np.ptp(predicted), np.ptp(labels)) == 0
    return {
        "mean_absolute_error": float(sklearn("metrics").mean_absolute_error(labels, predicted)),
        "correlation": 0.0 if constant else float(np.corrcoef(predicted, labels)[0, 1]),
    }


def sklearn(module: str) -> ModuleType:
    """Returns a module of scikit-learn, which is optional."""
    return optional(f"sklearn.{module}", "This evaluation needs scikit-learn", "demo")

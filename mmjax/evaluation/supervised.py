"""How good predictions are, with every subset of the modalities: classification and regression."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, one_of
from mmjax.core.subsets import keep_only, subset_name, subsets
from mmjax.core.types import Array, Batch
from mmjax.evaluation.evaluator import Embed, Embedded, collect

ALL = "all"
"""The subset of which no modality is removed."""


@dataclasses.dataclass(frozen=True)
class SubsetEvaluator:
    """What both evaluators share: predictions of a head, with all modalities and with those of each subset only.

    Attributes:
      head: decoder of the model.
      target: in `Batch.targets`.
      by_subset: also evaluate with every non-empty subset of the modalities, the others removed; an example counts
        where it has any of them.
      name: what the metrics are filed under.
    """

    head: str = "label"
    target: str = "label"
    by_subset: bool = True
    name: str = "supervised"

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: Any) -> dict[str, float]:
        """Returns 'SUBSET/metric' -> value, SUBSET being 'image', 'image+text', ..., and 'all' for all modalities.

        Raises:
          UserError: the model has no such head, the batches no such target, or nothing is left to judge.
        """
        del extra
        metrics = {}
        for part, found in predictions(embed, batches, self.head, self.by_subset).items():
            labels = found.target(self.target)
            keep = self._has_label(labels)
            if keep.any():
                found = self._metrics(found.values[keep], labels[keep])
                metrics |= {f"{part}/{key}": value for key, value in found.items()}
        if not metrics:
            raise UserError(f"evaluation: no example has a target {self.target!r} and a modality.")
        return metrics

    def _has_label(self, labels: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _metrics(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ClassificationEvaluator(SubsetEvaluator):
    """`accuracy`, `weighted_f1` and `macro_f1` of logits [B, K] against classes [B], by scikit-learn."""

    name: str = "classification"

    def _has_label(self, labels: np.ndarray) -> np.ndarray:
        return labels >= 0

    def _metrics(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return classification_metrics(predicted.argmax(axis=-1), labels)


@dataclasses.dataclass(frozen=True)
class RegressionEvaluator(SubsetEvaluator):
    """`mean_absolute_error` and Pearson's `correlation` of values [B, 1] against targets [B]."""

    name: str = "regression"

    def _has_label(self, labels: np.ndarray) -> np.ndarray:
        return np.isfinite(labels)

    def _metrics(self, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return regression_metrics(predicted.reshape(len(labels)), labels)


def predictions(embed: Embed, batches: Iterable[Batch], head: str, by_subset: bool) -> dict[str, Embedded]:
    """Returns subset -> predictions of the head over a data set, in the order of the table.

    Each batch is read once. An example that has none of a subset's modalities is left out of that subset.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise UserError("evaluation: the data gave no batches; it needs at least one record.")
    names = list(first.streams)
    parts = {subset_name(part): part for part in subsets(names)[:-1]} if by_subset else {}
    parts[ALL] = tuple(names)

    def embed_parts(batch: Batch) -> dict[str, Array]:
        return {label: _one(embed(keep_only(batch, part)), head) for label, part in parts.items()}

    found = collect(embed_parts, _with_presence(first, batches), list(parts))
    return {label: _having(found[label], part) for label, part in parts.items()}


def _one(answers: Any, head: str) -> Array:
    one_of(head, answers, "evaluation: the head")
    return answers[head]


_PRESENT = "present/{}"


def _with_presence(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    """Yields the batches with a target that says which modalities an example has, so that it is gathered too."""
    for batch in itertools.chain([first], rest):
        there = {_PRESENT.format(name): stream.present for name, stream in batch.streams.items()}
        yield batch.replace(targets=batch.targets | there)


def _having(found: Embedded, part: Iterable[str]) -> Embedded:
    """Returns the rows that have any of the modalities."""
    keep = np.stack([found.target(_PRESENT.format(name)) for name in part]).any(axis=0)
    targets = {name: value[keep] for name, value in found.targets.items()}
    return Embedded(found.values[keep], found.group[keep], targets)


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns `accuracy`, `weighted_f1` and `macro_f1` of classes [N] against classes [N]."""
    metrics = _metrics_module()
    return {
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "weighted_f1": float(metrics.f1_score(labels, predicted, average="weighted", zero_division=0)),
        "macro_f1": float(metrics.f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def regression_metrics(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns `mean_absolute_error` and Pearson's `correlation` (0 where either is constant) of [N] against [N]."""
    constant = min(np.ptp(predicted), np.ptp(labels)) == 0
    return {
        "mean_absolute_error": float(_metrics_module().mean_absolute_error(labels, predicted)),
        "correlation": 0.0 if constant else float(np.corrcoef(predicted, labels)[0, 1]),
    }


def _metrics_module() -> Any:
    """scikit-learn is optional: a sentence where it is missing."""
    try:
        return importlib.import_module("sklearn.metrics")
    except ImportError as error:
        raise UserError("These metrics need scikit-learn: pip install 'mmjax[demo]'") from error

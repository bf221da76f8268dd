"""How much the features of a frozen model say about labels: a linear probe and a k-nearest-neighbours vote."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jax.sharding import Mesh

from mmjax.core.errors import UserError
from mmjax.core.types import Array, Batch
from mmjax.evaluation.evaluator import Embed, collect, unit
from mmjax.evaluation.retrieval import mesh_in_use, top_k
from mmjax.evaluation.supervised import sklearn

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
"""Inverse regularisation strengths C that the linear probe tries."""


def linear_probe(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    strengths: Sequence[float] = STRENGTHS,
    validation_share: float = 0.2,
    max_iter: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Fits logistic regression on standardised features.

    The strength is chosen on a part of the training set that is held out, then all of it is fitted again. The test
    set is used once.

    Args:
      train_x: [N, D] float features.
      train_y: [N] labels of any kind.
      test_x: [M, D] float.
      test_y: [M] labels.
      strengths: values of C to try; the smallest of equals wins.
      validation_share: of the training set, in (0, 1).
      max_iter: L-BFGS iterations a fit.
      seed: of the held-out part.

    Returns:
      `top_1` on the test set, `validation_top_1` and the chosen `strength`.

    Raises:
      UserError: scikit-learn is not installed, shapes disagree, or there are fewer than two classes.
    """
    _check(train_x, train_y, test_x, test_y)
    linear, model_selection = sklearn("linear_model"), sklearn("model_selection")
    pipeline, preprocessing = sklearn("pipeline"), sklearn("preprocessing")
    x, y = np.asarray(train_x, np.float64), np.asarray(train_y)
    _, sizes = np.unique(y, return_counts=True)
    if len(sizes) < 2:
        raise UserError(f"linear probe: the training labels have {len(sizes)} class; at least two are needed.")
    held_out = round(validation_share * len(y))
    split = model_selection.train_test_split(
        *(x, y),
        test_size=validation_share,
        random_state=seed,
        stratify=y if sizes.min() > 1 and len(sizes) <= min(held_out, len(y) - held_out) else None,
    )

    def fit(strength: float, features: np.ndarray, labels: np.ndarray):
        regression = linear.LogisticRegression(C=strength, max_iter=max_iter)
        return pipeline.make_pipeline(preprocessing.StandardScaler(), regression).fit(features, labels)

    fit_x, valid_x, fit_y, valid_y = split
    if len(np.unique(fit_y)) < 2:
        raise UserError(
            f"linear probe: of {len(y)} training examples, the {len(fit_y)} that are left to fit are of one class; "
            "give it more of each class."
        )
    scores = [float(fit(strength, fit_x, fit_y).score(valid_x, valid_y)) for strength in sorted(strengths)]
    best = sorted(strengths)[int(np.argmax(scores))]
    top_1 = float(fit(best, x, y).score(np.asarray(test_x, np.float64), np.asarray(test_y)))
    return {"top_1": top_1, "validation_top_1": max(scores), "strength": float(best)}


def knn_probe(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Classifies by a vote of the k nearest training features, each weighted exp(cosine / temperature).

    Args:
      train_x: [N, D] float features, normalised here.
      train_y: [N] labels of any kind.
      test_x: [M, D] float.
      test_y: [M] labels.
      k: neighbours that vote; all where the training set has fewer.
      temperature: of the weights.
      chunk: rows in one block of scores.
      mesh: see `retrieval.rank_counts`.

    Returns:
      `top_1`.

    Raises:
      UserError: shapes disagree.

    References:
      Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 3.4;
      Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers (k = 20, temperature 0.07).
    """
    _check(train_x, train_y, test_x, test_y)
    names, classes = np.unique(np.asarray(train_y), return_inverse=True)
    scores, rows = top_k(unit(test_x), unit(train_x), k, chunk=chunk, mesh=mesh)  # [M, k]
    weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    votes = np.zeros((len(scores), len(names)))
    np.add.at(votes, (np.arange(len(scores))[:, None], classes[rows]), weights)  # [M, C]
    return {"top_1": float(np.mean(names[votes.argmax(axis=1)] == np.asarray(test_y)))}


@dataclasses.dataclass(frozen=True)
class ProbeEvaluator:
    """Linear probe and k-NN of one modality, or of what a decoder makes of several.

    Under `jax.set_mesh` the k-NN is cut over all its devices.

    Attributes:
      modality: whose embeddings are the features; or the name of a decoder that gives [B, D].
      inputs: the modalities that the model is given; None: `modality` alone.
      label: the name in `Batch.targets` of the class [B].
      k: neighbours of the k-NN vote.
    """

    modality: str = "image"
    label: str = "label"
    k: int = 20
    inputs: Sequence[str] | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model is given."""
        return (self.modality,) if self.inputs is None else tuple(self.inputs)

    @property
    def needs(self) -> dict[str, str]:
        """Labelled data to learn from."""
        return {"train_batches": self.modalities[0]}

    def __call__(self, embed: Embed, batches: Iterable[Batch], train_batches: Iterable[Batch]) -> dict[str, float]:
        """Fits on train_batches and returns `linear/...` (see `linear_probe`) and `knn/top_1` on batches.

        Beside them `majority/top_1`, of the answer that is always the commonest class of train_batches.
        """
        train = collect(embed, train_batches, (self.modality,))[self.modality]
        test = collect(embed, batches, (self.modality,))[self.modality]
        sets = (train.values, train.target(self.label), test.values, test.target(self.label))
        classes, counts = np.unique(sets[1], return_counts=True)
        found = {"linear": linear_probe(*sets), "knn": knn_probe(*sets, k=self.k, mesh=mesh_in_use())}
        found["majority"] = {"top_1": float(np.mean(sets[3] == classes[counts.argmax()]))}
        return {f"{probe}/{key}": value for probe, metrics in found.items() for key, value in metrics.items()}


def _check(train_x: Array, train_y: Array, test_x: Array, test_y: Array) -> None:
    """Raises UserError unless the sets are [N, D], [N], [M, D], [M] and not empty."""
    shapes = [np.shape(x) for x in (train_x, train_y, test_x, test_y)]
    (train, train_labels, test, test_labels) = shapes
    fits = len(train) == len(test) == 2 and train[1] == test[1] and min(train + test) > 0
    if not fits or train_labels != train[:1] or test_labels != test[:1]:
        raise UserError(
            f"probe: got features {train} with labels {train_labels} to fit and {test} with {test_labels} to test; "
            "expected [N, D], [N], [M, D] and [M], none empty."
        )

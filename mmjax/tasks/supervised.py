"""Supervision of fused tokens: classification and regression, with probes of each modality beside."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, one_of
from mmjax.core.types import Array, Batch
from mmjax.layers.pooling import summary
from mmjax.tasks.task import Apply, Evidence, TaskLoss


@dataclasses.dataclass(frozen=True)
class Supervised(abc.ABC):
    """What classification and regression share; an example counts where it has a target and any modality.

    Attributes:
      head: decoder of the model whose prediction is judged.
      target: of `Batch.targets`.
      probes: decoder (decoders.probes.Probes) that is trained beside, or None.
    """

    head: str = "label"
    target: str = "label"
    probes: str | None = None
    _kind: ClassVar[type] = jnp.floating

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns what the heads and probes predict and what the fusion adds to the loss, all [B, ...]."""
        outputs = apply(params, batch.streams, rng)
        one_of(self.head, outputs.predictions, f"{type(self).__name__}.head")
        if self.probes is not None:
            one_of(self.probes, outputs.predictions, f"{type(self).__name__}.probes")
        by_example = {
            "prediction": outputs.predictions[self.head],
            "probes": outputs.predictions[self.probes] if self.probes else {},
            "features": {name: summary(tokens) for name, tokens in outputs.tokens.items()},
            # 0 or 1, not bool: what crosses from one stage to the other is differentiated.
            "present": {name: tokens.present.astype(jnp.float32) for name, tokens in outputs.tokens.items()},
            "penalties": outputs.penalties,
        }
        return by_example, outputs.scalars

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the loss of every example; the penalties and the probes' own losses are its `extra`.

        Raises:
          UserError: there is no such target, or it is not one class or value [B] an example.
        """
        labels = self._labels(batch)
        present = {name: there > 0 for name, there in by_example["present"].items()}
        mask = batch.mask & self._has_label(labels) & jnp.stack(list(present.values())).any(axis=0)  # [B]
        labels = jnp.where(mask, labels, jnp.zeros_like(labels))
        values = self._loss(by_example["prediction"], labels)  # [B]
        metrics = self._metrics(by_example["prediction"], labels, mask)
        extra = jnp.zeros_like(values)
        for name, answer in by_example["probes"].items():
            seen = mask & present[name]
            extra = extra + jnp.where(seen, self._loss(answer, labels), 0.0)
            metrics |= {f"probe/{name}/{key}": value for key, value in self._metrics(answer, labels, seen).items()}
        evidence = Evidence(
            by_example["prediction"],
            labels,
            {name: mask & there for name, there in present.items()},
            by_example["features"],
            by_example["probes"],
            self.log_likelihood,
        )
        return TaskLoss(values, mask, metrics, evidence, extra=extra).penalised(by_example["penalties"])

    def _labels(self, batch: Batch) -> Array:
        who = type(self).__name__
        one_of(self.target, batch.targets, f"{who}.target")
        labels = batch.targets[self.target]
        if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, self._kind):
            raise UserError(
                f"{who}: the target {self.target!r} is {labels.dtype} {list(labels.shape)}; expected one "
                f"{'class' if self._kind is jnp.integer else 'value'} an example, [batch] of "
                f"{self._kind.__name__} numbers."
            )
        return labels

    @abc.abstractmethod
    def log_likelihood(self, prediction: Array, labels: Array) -> jax.Array:
        """Returns [B] float32, higher is better."""

    @abc.abstractmethod
    def _has_label(self, labels: Array) -> jax.Array:
        """Returns [B] bool."""

    @abc.abstractmethod
    def _loss(self, prediction: Array, labels: Array) -> jax.Array:
        """Returns [B] float32."""

    @abc.abstractmethod
    def _metrics(self, prediction: Array, labels: Array, mask: Array) -> dict[str, jax.Array]:
        """Returns name -> [], the mean over mask [B]."""


@dataclasses.dataclass(frozen=True)
class Classification(Supervised):
    """Cross-entropy of logits [B, K] with classes [B]; a negative class is none.

    Attributes:
      label_smoothing: share of the target that is spread over all classes.
      class_weights: factor on the loss of each class; None is 1 for all.
    """

    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None
    _kind: ClassVar[type] = jnp.integer

    def __post_init__(self):
        if self.class_weights is not None:  # hashable, as a static part of the evidence has to be
            object.__setattr__(self, "class_weights", tuple(self.class_weights))

    def log_likelihood(self, prediction: Array, labels: Array) -> jax.Array:
        """Returns the log-probability of the true class [B]."""
        return -optax.losses.softmax_cross_entropy_with_integer_labels(prediction.astype(jnp.float32), labels)

    def _has_label(self, labels: Array) -> jax.Array:
        return labels >= 0

    def _loss(self, prediction: Array, labels: Array) -> jax.Array:
        classes = prediction.shape[-1]
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise UserError(
                f"Classification.class_weights has {len(self.class_weights)} weights, but {self.head!r} predicts "
                f"{classes} classes."
            )
        wanted = optax.losses.smooth_labels(jax.nn.one_hot(labels, classes), self.label_smoothing)  # [B, K]
        values = optax.losses.softmax_cross_entropy(prediction.astype(jnp.float32), wanted)  # [B]
        return values if self.class_weights is None else values * jnp.asarray(self.class_weights)[labels]

    def _metrics(self, prediction: Array, labels: Array, mask: Array) -> dict[str, jax.Array]:
        return {"accuracy": mean_where(prediction.argmax(axis=-1) == labels, mask)}


@dataclasses.dataclass(frozen=True)
class Regression(Supervised):
    """Huber loss of values [B, 1] with targets [B]; a target that is not finite is none.

    Attributes:
      delta: errors below it cost their half square, above it grow linearly.
      scale: unit of the targets; errors are divided by it.
    """

    delta: float = 1.0
    scale: float = 1.0

    def log_likelihood(self, prediction: Array, labels: Array) -> jax.Array:
        """Returns the log-density [B] of a Gaussian of standard deviation `scale`, up to its constant."""
        return -0.5 * jnp.square(self._error(prediction, labels))

    def _error(self, prediction: Array, labels: Array) -> jax.Array:
        if prediction.ndim != 2 or prediction.shape[1] != 1:
            raise UserError(f"Regression: {self.head!r} predicts {tuple(prediction.shape)}; expected [batch, 1].")
        return (prediction[:, 0].astype(jnp.float32) - labels) / self.scale

    def _has_label(self, labels: Array) -> jax.Array:
        return jnp.isfinite(labels)

    def _loss(self, prediction: Array, labels: Array) -> jax.Array:
        error = self._error(prediction, labels)
        return optax.losses.huber_loss(error, delta=self.delta)

    def _metrics(self, prediction: Array, labels: Array, mask: Array) -> dict[str, jax.Array]:
        return {"mean_absolute_error": mean_where(jnp.abs(prediction[:, 0] - labels), mask)}

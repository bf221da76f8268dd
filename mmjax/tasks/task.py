"""The interface of every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.struct
import jax

from mmjax.core.arrays import mean_where
from mmjax.core.types import Array, Batch

Apply = Callable[..., Any]
"""apply(params, streams, rng) -> Outputs."""


@flax.struct.dataclass
class Evidence:
    """What a supervised task saw of each modality; the monitor and the modulators of `mmjax.balance` read it.

    Attributes:
      prediction: [B, K] float32 of the head.
      labels: [B] int32 classes or [B] float32 values to predict.
      present: modality -> [B] bool.
      features: modality -> [B, D] float32, one vector an example, with its gradient.
      probes: modality -> [B, K] float32 logits or values of its probe; empty where the model has no probes.
      log_likelihood: static; (prediction [B, K], labels [B]) -> [B] float32, higher is better.
    """

    prediction: Array
    labels: Array
    present: dict[str, Array]
    features: dict[str, Array]
    probes: dict[str, Array]
    log_likelihood: Callable[[Array, Array], Array] = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class TaskLoss:
    """What a task gives the step.

    Attributes:
      values: [B] float32 loss of each example.
      mask: [B] bool, the examples that count.
      metrics: name -> [] float32 worth logging.
      evidence: of a supervised task.
      parts: name -> TaskLoss of the tasks that this one is the weighted sum of.
      weights: name -> [] float32, of the parts.
      extra: [B] float32, added to the loss whatever the weights: of probes, and the penalties of a fusion.
    """

    values: Array
    mask: Array
    metrics: dict[str, Array] = flax.struct.field(default_factory=dict)
    evidence: Evidence | None = None
    parts: dict[str, TaskLoss] = flax.struct.field(default_factory=dict)
    weights: dict[str, Array] = flax.struct.field(default_factory=dict)
    extra: Array | float = 0.0

    def mean(self) -> jax.Array:
        """Returns the float32 mean of values + extra over mask, which is minimised; 0 where nothing counts."""
        return mean_where(self.values + self.extra, self.mask)

    def mean_of_values(self) -> jax.Array:
        """Returns the float32 mean of values alone over mask: what a weight is of."""
        return mean_where(self.values, self.mask)

    def penalised(self, penalties: Mapping[str, Array]) -> TaskLoss:
        """Returns the loss with the penalties [B] of `Outputs` added and logged."""
        metrics = {f"penalty/{name}": mean_where(penalty, self.mask) for name, penalty in penalties.items()}
        extra = sum(penalties.values(), start=self.extra)
        return self.replace(extra=extra, metrics=self.metrics | metrics)


def run(task: Task, apply: Apply, params: Any, batch: Batch, rng: Array | None = None) -> TaskLoss:
    """Returns the loss of a batch, both stages in one; rng is [B] keys, or None for no noise."""
    return loss_of(task, *task.embed(apply, params, batch, rng), batch)


def loss_of(task: Task, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
    """Returns task.loss, under a name that profiles and plans tell it by."""
    with jax.named_scope("loss"):
        return task.loss(by_example, shared, batch)


class Task(Protocol):
    """A pure loss in two stages; what crosses between them is what gradient caching keeps of a micro-batch.

    `embed` sees examples one by one (any micro-batch of them); `loss` sees the whole batch. A task whose `embed` runs
    the model more than once says so by a class attribute `passes`; MultiTask, which runs it once for all, takes none.
    Heads that are trained on examples with all modalities alone are named in a class attribute `of_whole`, so that an
    explanation does not ask them of a part. What a task asks of the model and of the transforms (modality ->
    Transform) may be said before anything is traced, by a method `check(model, transforms)` that raises UserError.
    """

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns (by_example, shared): trees of [B, ...] arrays and of arrays that do not depend on the batch."""

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the loss of the whole batch."""

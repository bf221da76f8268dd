"""Several tasks at once: one forward pass, one step, a weighted sum of their losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least, listed
from mmjax.core.types import Array, Batch
from mmjax.tasks.task import Apply, Task, TaskLoss

LOG_VARIANCE = "log_variance/{}"
"""The learned scalar of a task in uncertainty weighting; see `uncertainty_scalars`."""


def uncertainty_scalars(names: Any) -> dict[str, float]:
    """Returns `MultimodalModel.scalars` for uncertainty weighting of the tasks of these names."""
    return {LOG_VARIANCE.format(name): 0.0 for name in names}


@dataclasses.dataclass(frozen=True)
class MultiTask:
    """The weighted sum of the mean losses of several tasks.

    An example may count for some tasks and not for others: each task's mean is over its own examples. Monitor and
    modulators see the evidence of the first task.

    Attributes:
      tasks: name -> Task.
      weights: name -> fixed weight; 1 where there is none. Those of GradNorm (balance.gradnorm) multiply them.
      uncertainty: weigh task i by exp(-s_i) and add s_i / 2, where s_i is the learned scalar 'log_variance/NAME' of the
        model (`uncertainty_scalars` makes them). A classification, whose likelihood has a temperature and no variance,
        is weighed alike.

    Raises:
      UserError: no task, one that needs the model more than once (Flava), or a weight of none.

    References:
      Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, 2018, equation 7.
    """

    tasks: Mapping[str, Task]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    uncertainty: bool = False

    def __post_init__(self):
        if not self.tasks:
            raise UserError("MultiTask.tasks is empty; it needs at least one task.")
        for name, task in self.tasks.items():
            if (passes := getattr(task, "passes", 1)) > 1:
                raise UserError(
                    f"MultiTask.tasks.{name}: {type(task).__name__} runs the model {passes} times, and all tasks here "
                    "share one run. It is a weighted sum of objectives itself; train it alone."
                )
        if wrong := sorted(set(self.weights) - set(self.tasks)):
            raise UserError(f"MultiTask.weights names {listed(wrong)}; its tasks are {listed(self.tasks)}.")
        at_least(0, "MultiTask.weights", **self.weights)

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Runs the model once and lets every task take its part."""
        outputs = apply(params, batch.streams, rng)
        alone = outputs.replace(penalties={})  # which count once, not once a task
        taken = {name: task.embed(lambda *_: alone, params, batch, rng) for name, task in self.tasks.items()}
        by_example = {name: by_example for name, (by_example, _) in taken.items()}
        shared = {name: shared for name, (_, shared) in taken.items()}
        tasks = {"tasks": by_example, "penalties": outputs.penalties}
        return tasks, {"tasks": shared, "scalars": outputs.scalars}

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the sum, spread over the examples so that its mean is the sum of the tasks' means."""
        parts = {
            name: task.loss(by_example["tasks"][name], shared["tasks"][name], batch)
            for name, task in self.tasks.items()
        }
        weights = {name: jnp.float32(self.weights.get(name, 1.0)) for name in self.tasks}
        spread = jnp.float32(0.0)
        if self.uncertainty:
            for name, part in parts.items():
                log_variance = self._scalar(shared["scalars"], name)
                spread = spread + jnp.where(part.mask.any(), weights[name] * 0.5 * log_variance, 0.0)
                weights[name] = weights[name] * jnp.exp(-log_variance)
        loss = weighted_sum(parts, weights).penalised(by_example["penalties"])
        return loss.replace(extra=loss.extra + spread)

    def _scalar(self, scalars: Mapping[str, Array], name: str) -> Array:
        if LOG_VARIANCE.format(name) not in scalars:
            raise UserError(
                f"MultiTask.uncertainty needs the learned scalar {LOG_VARIANCE.format(name)!r}: set model.scalars to "
                f"tasks.multi.uncertainty_scalars({list(self.tasks)})."
            )
        return scalars[LOG_VARIANCE.format(name)]


def weighted_sum(parts: Mapping[str, TaskLoss], weights: Mapping[str, Array]) -> TaskLoss:
    """Returns the TaskLoss whose values have the mean sum_i weights[i] * (mean of the values of parts[i]).

    An example that any part counts, counts; each part's values are scaled by (examples in all) / (its own). The parts'
    `extra` is added without a weight.
    """
    mask = jnp.stack([part.mask for part in parts.values()]).any(axis=0)  # [B]
    total = jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)
    values = extra = jnp.zeros(mask.shape, jnp.float32)
    metrics = {}
    for name, part in parts.items():
        share = total / jnp.maximum(jnp.sum(part.mask.astype(jnp.float32)), 1.0)
        values = values + weights[name] * jnp.where(part.mask, part.values, 0.0) * share
        extra = extra + jnp.where(part.mask, part.extra, 0.0) * share
        metrics |= {f"{name}/{key}": value for key, value in part.metrics.items()}
        metrics |= {f"{name}/loss": part.mean_of_values(), f"{name}/weight": jnp.float32(weights[name])}
    evidence = next((part.evidence for part in parts.values() if part.evidence is not None), None)
    return TaskLoss(values, mask, metrics, evidence, dict(parts), dict(weights), extra)

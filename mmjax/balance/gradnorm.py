"""GradNorm: weights of several tasks that make them learn at one rate."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.balance.modulator import Modulator, Step
from mmjax.core.errors import UserError, at_least
from mmjax.core.trees import flatten, map_with_path, path_mask
from mmjax.core.types import Array
from mmjax.tasks.multi import weighted_sum
from mmjax.tasks.task import TaskLoss


@dataclasses.dataclass(frozen=True)
class GradNorm(Modulator):
    """Weighs the tasks of a MultiTask; each step moves the weights w so that the norms of w_i grad L_i meet.

    L_i is the loss of task i under its fixed (or uncertainty) weight, without probes and penalties, which are added as
    they are. The norm of task i, with respect to the shared parameters and without noise, is to be the mean norm times
    (L_i / L_i(0), over its mean) to the power alpha: what has learned less gets more. After each step the weights are
    scaled to sum to their number.

    Attributes:
      shared: pattern (re.fullmatch on the path) of the parameters whose gradients are compared: the last layer that
        all tasks share. A backward pass for each task from there on, over the whole batch at once, is the cost.
      alpha: strength; 0 makes all norms equal.
      learning_rate: of the weights.

    References:
      Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing, 2018, equations 1 and 2, algorithm 1.
    """

    shared: str = r"fusion/.*"
    alpha: float = 1.5
    learning_rate: float = 0.025

    def __post_init__(self):
        at_least(0, "GradNorm", alpha=self.alpha, learning_rate=self.learning_rate)

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Returns weights of 1, and the losses at the first step (0 as long as unknown).

        Raises:
          UserError: the task has fewer than two parts, or `shared` matches no parameter.
        """
        if len(loss.parts) < 2:
            raise UserError("GradNorm weighs the tasks of a MultiTask of two or more, and this task is none.")
        path_mask(params, [self.shared], "GradNorm.shared")
        return {
            "weights": {name: jnp.ones(()) for name in loss.parts},
            "first": {name: jnp.zeros(()) for name in loss.parts},
        }

    def reweigh(self, loss: TaskLoss, state: Any) -> TaskLoss:
        """Returns the loss with its parts under the present weights too."""
        weights = {name: loss.weights[name] * weight for name, weight in state["weights"].items()}
        found = weighted_sum(loss.parts, weights)
        return loss.replace(values=found.values, metrics=loss.metrics | found.metrics, weights=weights)

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict[str, Array]]:
        """Returns updates as they are, and the weights moved."""
        names = list(state["weights"])
        losses = jnp.stack([step.loss.parts[name].mean_of_values() for name in names])  # [T]
        first = jnp.stack([state["first"][name] for name in names])
        first = jnp.where(first > 0, first, losses)
        norms = self._norms(step, names)  # [T]
        weights = self.updated(jnp.stack([state["weights"][name] for name in names]), norms, losses, first)
        metrics = {f"gradnorm/norm/{name}": norm for name, norm in zip(names, norms, strict=True)}
        new = {
            "weights": dict(zip(names, weights, strict=True)),
            "first": dict(zip(names, first, strict=True)),
        }
        return updates, new, metrics

    def updated(self, weights: Array, norms: Array, losses: Array, first: Array) -> jax.Array:
        """Returns the next weights [T].

        Args:
          weights: [T].
          norms: [T], of the gradient of each task's loss, without its weight.
          losses: [T], now.
          first: [T], at the first step.
        """
        rate = losses / jnp.maximum(first, jnp.finfo(jnp.float32).tiny)
        rate = rate / jnp.maximum(jnp.mean(rate), jnp.finfo(jnp.float32).tiny)
        wanted = jax.lax.stop_gradient(jnp.mean(weights * norms) * rate**self.alpha)  # [T]
        slope = jax.grad(lambda w: jnp.sum(jnp.abs(w * norms - wanted)))(weights)
        weights = jnp.maximum(weights - self.learning_rate * slope, 1e-3)
        return weights * len(weights) / jnp.sum(weights)

    def _norms(self, step: Step, names: list[str]) -> jax.Array:
        chosen = self._chosen(step.params)

        def losses(chosen: dict[str, Array]) -> jax.Array:
            params = map_with_path(lambda path, leaf: chosen.get(path, jax.lax.stop_gradient(leaf)), step.params)
            loss = step.run(params, step.batch)
            weights = jax.lax.stop_gradient(loss.weights)
            return jnp.stack([weights[name] * loss.parts[name].mean_of_values() for name in names])

        rows = jax.jacrev(losses)(chosen)  # path -> [T, ...]
        return jnp.sqrt(sum(jnp.sum(jnp.square(row.reshape(len(names), -1)), axis=1) for row in rows.values()))

    def _chosen(self, params: Any) -> dict[str, Array]:
        return {path: leaf for path, leaf in flatten(params).items() if re.fullmatch(self.shared, path)}

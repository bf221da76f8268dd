"""The interface of every part of the step that watches or changes loss and gradients, with a state of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError
from mmjax.core.trees import map_with_path
from mmjax.core.types import Array, Batch
from mmjax.model import ENCODERS
from mmjax.tasks.task import Apply, Evidence, Task, TaskLoss


@dataclasses.dataclass(frozen=True)
class Step:
    """What a modulator sees of one step, after the gradient is taken and the optimizer has been asked.

    Attributes:
      loss: of the batch.
      grads: its gradient, like params.
      params: as they were before the update.
      batch: of the step.
      number: [] int32, steps taken before.
      key: [] PRNG key of this step and modulator.
      run: (params, batch) -> TaskLoss of the task alone, without noise; embedded in the step's micro-batches.
    """

    loss: TaskLoss
    grads: Any
    params: Any
    batch: Batch
    number: Array
    key: Array
    run: Callable[[Any, Batch], TaskLoss]

    @property
    def evidence(self) -> Evidence:
        """Of the loss.

        Raises:
          UserError: the task gives none.
        """
        return evidence_of(self.loss)


class Modulator:
    """A part of the train step; the defaults change nothing. A dataclass whose fields are its settings.

    What the papers do to gradients under SGD is done to updates here, which under SGD is the same: Adam and its kin
    divide a gradient by its own size, and a factor with it.
    """

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Returns the state at step 0, a tree of arrays; params and loss are shapes."""
        del params, loss
        return ()

    def reweigh(self, loss: TaskLoss, state: Any) -> TaskLoss:
        """Returns the loss that is differentiated instead; of the same examples."""
        del state
        return loss

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict[str, Array]]:
        """Returns (what is added to the parameters instead of updates, next state, metrics)."""
        del step
        return updates, state, {}


@dataclasses.dataclass(frozen=True)
class Reweighed:
    """A task whose loss went through the modulators' `reweigh`; itself a Task."""

    task: Task
    modulators: Mapping[str, Modulator]
    states: Mapping[str, Any]

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """As the task does."""
        return self.task.embed(apply, params, batch, rng)

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """As the task does, then changed by each modulator in order."""
        loss = self.task.loss(by_example, shared, batch)
        for name, modulator in self.modulators.items():
            loss = modulator.reweigh(loss, self.states[name])
        return loss


def evidence_of(loss: TaskLoss) -> Evidence:
    """Returns the evidence of a loss.

    Raises:
      UserError: the task gives none.
    """
    if loss.evidence is None:
        raise UserError(
            "balance: the task gives no evidence of its modalities; the monitor and the modulators need a supervised "
            "task (tasks.supervised), alone or first in a MultiTask."
        )
    return loss.evidence


def seen(evidence: Evidence) -> dict[str, jax.Array]:
    """Returns modality -> [] bool, whether any example of the batch has it; the scores of one that none has are 0."""
    return {name: there.any() for name, there in evidence.present.items()}


def mean_likelihoods(evidence: Evidence, answers: Mapping[str, Array]) -> dict[str, jax.Array]:
    """Returns modality -> [] float32, the mean over its examples of the log-likelihood of its answers [B, K]."""
    return {
        name: mean_where(evidence.log_likelihood(answer, evidence.labels), evidence.present[name])
        for name, answer in answers.items()
    }


def encoder_of(path: str, names: Collection[str]) -> str | None:
    """Returns which modality's encoder in a MultimodalModel the parameter at path belongs to; None for none of them."""
    return next((name for name in names if path.startswith(f"{ENCODERS}{name}/")), None)


def scale_encoders(updates: Any, factors: Mapping[str, Array]) -> Any:
    """Returns updates with those of each modality's encoder multiplied by its factor []."""

    def scale(path: str, update: Array) -> Array:
        name = encoder_of(path, factors)
        return update if name is None else update * factors[name]

    return map_with_path(scale, updates)


def check_probes(loss: TaskLoss, who: str) -> Evidence:
    """Returns the evidence, which has probes.

    Raises:
      UserError: it has none, or of fewer than two modalities.
    """
    evidence = evidence_of(loss)
    if len(evidence.probes) < 2:
        raise UserError(
            f"{who} compares the probes of two modalities or more, and the task has {len(evidence.probes)}: add "
            "decoders.probes.Probes to model.decoders and name it in task.probes."
        )
    return evidence


def others_mean(values: Mapping[str, Array], name: str, there: Mapping[str, Array]) -> tuple[jax.Array, jax.Array]:
    """Returns the mean [] of the values of the other modalities that are there, and whether there are any [] bool."""
    others = [other for other in values if other != name]
    count = sum(jnp.asarray(there[other], jnp.float32) for other in others)
    total = sum(jnp.where(there[other], values[other], 0.0) for other in others)
    return total / jnp.maximum(count, 1.0), count > 0

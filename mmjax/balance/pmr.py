"""PMR: pull a modality that lags towards the centres of its classes, by a loss of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.balance.modulator import Modulator, Step, evidence_of, seen
from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, at_least
from mmjax.core.types import Array
from mmjax.tasks.task import TaskLoss


@dataclasses.dataclass(frozen=True)
class Pmr(Modulator):
    """Adds, for modality m, alpha * b_m * prototype cross-entropy - mu * g_m * entropy of its prototype answer.

    The prototype answer of an example is softmax(-distance to the class centres of m's features). With s_m its mean
    probability of the true class, b_m = clip(max(s) / s_m - 1, 0, 1) pulls those that lag, and g_m = clip(s_m / min(s)
    - 1, 0, 1) keeps those ahead from committing early. In balance both are exactly 0 and the loss is the task's own.
    The centres are moving averages over batches (the paper recomputes them once an epoch).

    Attributes:
      alpha: weight of the prototype cross-entropy.
      mu: weight of the entropy; the paper uses it in the first epochs.
      entropy_until: step after which mu is 0.
      decay: of the moving averages.

    References:
      Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, 2023, equations 7 to 14.
    """

    alpha: float = 1.0
    mu: float = 0.0
    entropy_until: int = 0
    decay: float = 0.9

    def __post_init__(self):
        at_least(0, "Pmr", alpha=self.alpha, mu=self.mu, entropy_until=self.entropy_until, decay=self.decay)

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Returns the centres [K, D] of every modality with how much is in them [K], and the step."""
        evidence = evidence_of(loss)
        classes = evidence.prediction.shape[-1]
        if not jnp.issubdtype(evidence.labels.dtype, jnp.integer):
            raise UserError("Pmr: prototypes are of classes, but the task is a regression.")
        centres = {n: jnp.zeros((classes, f.shape[-1])) for n, f in evidence.features.items()}
        return {
            "centres": centres,
            "weight": {name: jnp.zeros(classes) for name in centres},
            "step": jnp.zeros((), jnp.int32),
        }

    def reweigh(self, loss: TaskLoss, state: Any) -> TaskLoss:
        """Returns the loss with the terms of every modality, each over the examples that have it."""
        evidence = evidence_of(loss)
        answers = {n: self._log_answer(f, state, n) for n, f in evidence.features.items()}  # [B, K]
        likelihood = {n: jnp.take_along_axis(a, evidence.labels[:, None], axis=1)[:, 0] for n, a in answers.items()}
        pull, hold = self.strengths(self._scores(likelihood, evidence.present), seen(evidence))
        mu = jnp.where(state["step"] < self.entropy_until, self.mu, 0.0)
        extra, metrics = loss.extra, dict(loss.metrics)
        for name, answer in answers.items():
            there = evidence.present[name] & self._known(state, name, evidence.labels)
            entropy = -jnp.sum(jnp.exp(answer) * answer, axis=-1)  # [B]
            term = -self.alpha * pull[name] * likelihood[name] - mu * hold[name] * entropy
            extra = extra + jnp.where(there, term, 0.0)
            metrics |= {f"pmr/pull/{name}": pull[name], f"pmr/hold/{name}": hold[name]}
        return loss.replace(extra=extra, metrics=metrics)

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict[str, Array]]:
        """Returns updates as they are, and the centres moved towards those of the batch."""
        evidence, decay = step.evidence, self.decay
        centres, weight = {}, {}
        for name, features in evidence.features.items():
            there = evidence.present[name].astype(jnp.float32)[:, None]  # [B, 1]
            member = there * jax.nn.one_hot(evidence.labels, len(state["weight"][name]))  # [B, K]
            met = member.sum(axis=0) > 0  # [K]
            mean = member.T @ jnp.where(there > 0, features, 0.0) / jnp.maximum(member.sum(axis=0), 1.0)[:, None]
            old, held = state["centres"][name], state["weight"][name]
            centres[name] = jnp.where(met[:, None], decay * old + (1 - decay) * mean, old)
            weight[name] = jnp.where(met, decay * held + (1 - decay), held)
        return updates, {"centres": centres, "weight": weight, "step": state["step"] + 1}, {}

    def strengths(
        self, scores: Mapping[str, Array], there: Mapping[str, Array]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns (modality -> b_m [], modality -> g_m []) of modality -> s_m [], compared with those that are there.

        Args:
          scores: modality -> [].
          there: modality -> [] bool, whether its score is of any example.
        """
        tiny = jnp.finfo(jnp.float32).tiny
        stacked = jnp.stack(list(scores.values()))  # [M]
        known = jnp.stack([there[name] for name in scores])  # [M]
        best = jnp.max(jnp.where(known, stacked, 0.0))
        worst = jnp.maximum(jnp.min(jnp.where(known, stacked, jnp.inf)), tiny)
        pull = {name: jnp.clip(best / jnp.maximum(score, tiny) - 1, 0, 1) for name, score in scores.items()}
        hold = {name: jnp.clip(score / worst - 1, 0, 1) for name, score in scores.items()}
        return pull, hold

    def _scores(self, likelihood: dict[str, Array], present: dict[str, Array]) -> dict[str, jax.Array]:
        return {
            name: jax.lax.stop_gradient(mean_where(jnp.exp(value), present[name])) for name, value in likelihood.items()
        }

    def _log_answer(self, features: Array, state: Any, name: str) -> jax.Array:
        """Returns [B, K] float32: log-softmax of minus the distances to the centres; a class never seen is far."""
        weight = state["weight"][name]
        centres = state["centres"][name] / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny)[:, None]  # [K, D]
        square = jnp.sum(jnp.square(features[:, None] - centres), axis=-1)  # [B, K]
        distance = jnp.sqrt(jnp.maximum(square, 1e-12))
        return jax.nn.log_softmax(jnp.where(weight > 0, -distance, -1e4))

    def _known(self, state: Any, name: str, labels: Array) -> jax.Array:
        return state["weight"][name][labels] > 0

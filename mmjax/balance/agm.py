"""AGM: modulate each modality's update by how far it is ahead of its own running average."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.balance.modulator import Modulator, Step, evidence_of, mean_likelihoods, others_mean, scale_encoders, seen
from mmjax.core.errors import UserError, at_least
from mmjax.core.subsets import coalitions, keep_only, shapley_matrix
from mmjax.core.types import Array
from mmjax.tasks.task import Evidence, TaskLoss


@dataclasses.dataclass(frozen=True)
class Agm(Modulator):
    """Multiplies the update of modality m's encoder by exp(-alpha * (r_m - tau_m)).

    s_m is the mean cross-entropy of m's own share of the answer: its Shapley value over the sets of modalities, from
    forward passes with the others missing (2^M - 1 of them; the answer to nothing at all counts as zero, as in the
    paper). r_m = exp(mean of the others' s - s_m) says how far m is ahead in this batch, tau_m is the same of running
    averages. In balance with its own past, the factor is exactly 1. A modality that no example of a batch has leaves
    its average as it was, and the others are compared without it; r and tau are at most `limit`. The paper scales the
    gradient of m's share of the answer; here the update of m's encoder is scaled, so that the fusion, which is
    everyone's, learns undisturbed.

    Attributes:
      alpha: how strongly.
      most: modalities beyond which the 2^M passes are refused.
      limit: of r and tau, which grow exponentially.

    References:
      Li et al., Boosting Multi-modal Model Performance with Adaptive Gradient Modulation, 2023, equations 2 to 9.
    """

    alpha: float = 1.0
    most: int = 4
    limit: float = 10.0

    def __post_init__(self):
        at_least(0, "Agm", alpha=self.alpha)
        at_least(1, "Agm", limit=self.limit)

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Returns the running averages of s_m, and the number of steps in each."""
        names = sorted(evidence_of(loss).present)
        if not 2 <= len(names) <= self.most:
            raise UserError(f"Agm: there are {len(names)} modalities; it needs 2 to {self.most} (Agm.most).")
        return {key: {name: jnp.zeros(()) for name in names} for key in ("mean", "count")}

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict[str, Array]]:
        """Returns the modulated updates, the new averages, and the factors as metrics."""
        whole = step.run(step.params, step.batch).evidence
        scores = {name: -value for name, value in mean_likelihoods(whole, shares(step, whole)).items()}
        there, count, average = seen(whole), state["count"], state["mean"]
        known = {name: jnp.where(count[name] > 0, average[name], scores[name]) for name in average}
        factors = self.factors(scores, known, there)
        new = {name: (average[name] * count[name] + scores[name]) / (count[name] + 1) for name in average}
        new = {name: jnp.where(there[name], new[name], average[name]) for name in average}
        count = {name: count[name] + there[name] for name in count}
        metrics = {f"agm/factor/{name}": factor for name, factor in factors.items()}
        return scale_encoders(updates, factors), {"mean": new, "count": count}, metrics

    def factors(
        self, scores: Mapping[str, Array], averages: Mapping[str, Array], there: Mapping[str, Array]
    ) -> dict[str, jax.Array]:
        """Returns modality -> exp(-alpha (r - tau)) [].

        Args:
          scores: modality -> cross-entropy [] in this batch.
          averages: the same on average.
          there: modality -> [] bool, whether its score is of any example.
        """

        def ahead(values: Mapping[str, Array], name: str) -> tuple[jax.Array, jax.Array]:
            others, any_other = others_mean(values, name, there)
            return jnp.minimum(jnp.exp(others - values[name]), self.limit), any_other

        def factor(name: str) -> jax.Array:
            (now, any_other), (before, _) = ahead(scores, name), ahead(averages, name)
            return jnp.where(there[name] & any_other, jnp.exp(-self.alpha * (now - before)), 1.0)

        return {name: factor(name) for name in scores}


def shares(step: Step, whole: Evidence) -> dict[str, jax.Array]:
    """Returns modality -> [B, K], its Shapley value of the answer; over the modalities they sum to the whole answer."""
    names = sorted(whole.present)

    def answer(members: np.ndarray) -> Array:
        part = [name for name, member in zip(names, members, strict=True) if member]
        if len(part) in (0, len(names)):
            return whole.prediction if part else jnp.zeros_like(whole.prediction)
        return step.run(step.params, keep_only(step.batch, part)).evidence.prediction

    answers = jnp.stack([answer(members) for members in coalitions(len(names))])  # [2^M, B, K]
    found = jnp.tensordot(shapley_matrix(len(names)).astype(np.float32), answers, axes=1, precision="highest")
    return dict(zip(names, found, strict=True))

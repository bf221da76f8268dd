"""OGM-GE: slow the modality that is ahead, and give its update the noise back that this takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.balance.modulator import Modulator, Step, check_probes, encoder_of, others_mean, scale_encoders, seen
from mmjax.core.arrays import mean_where
from mmjax.core.errors import at_least
from mmjax.core.trees import map_with_path
from mmjax.core.types import Array
from mmjax.tasks.task import Evidence, TaskLoss


@dataclasses.dataclass(frozen=True)
class OgmGe(Modulator):
    """Multiplies the update of modality m's encoder by k_m = 1 - tanh(alpha * rho_m) where rho_m > 1, else by 1.

    rho_m is the mean probability that m's probe gives the true class, over the mean of the other modalities' (for two,
    the paper's ratio). The paper reads these probabilities off the halves of the weights of one linear classifier on
    concatenated features; probes (decoders.probes) say the same for any fusion.

    Attributes:
      alpha: how strongly.
      noise: add Gaussian noise to the slowed encoder, of the standard deviation that each of its updates had before it
        was slowed (the paper's GE).
      until: step after which nothing is changed; None is never.

    References:
      Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, 2022, equations 8, 9 and 12.
    """

    alpha: float = 0.3
    noise: bool = True
    until: int | None = None

    def __post_init__(self):
        at_least(0, "OgmGe", alpha=self.alpha, until=self.until)

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Checks that there are probes."""
        check_probes(loss, "OgmGe")
        return ()

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict[str, Array]]:
        """Returns the modulated updates and the factors as metrics."""
        factors = self.factors(probabilities(step.evidence), seen(step.evidence))
        if self.until is not None:
            factors = {name: jnp.where(step.number < self.until, factor, 1.0) for name, factor in factors.items()}
        slowed = scale_encoders(updates, factors)
        if self.noise:
            slowed = jax.tree.map(jnp.add, slowed, _noise(updates, factors, step.key))
        return slowed, state, {f"ogm_ge/factor/{name}": factor for name, factor in factors.items()}

    def factors(self, scores: Mapping[str, Array], there: Mapping[str, Array]) -> dict[str, jax.Array]:
        """Returns modality -> k_m []: exactly 1 for one that is not ahead of the others that are there.

        Args:
          scores: modality -> [].
          there: modality -> [] bool, whether its score is of any example.
        """

        def factor(name: str, score: Array) -> jax.Array:
            others, any_other = others_mean(scores, name, there)
            ratio = score / jnp.maximum(others, jnp.finfo(jnp.float32).tiny)
            return jnp.where(there[name] & any_other & (ratio > 1), 1 - jnp.tanh(self.alpha * ratio), 1.0)

        return {name: factor(name, score) for name, score in scores.items()}


def probabilities(evidence: Evidence) -> dict[str, jax.Array]:
    """Returns modality -> mean probability [] that its probe gives the true class, over the examples that have it."""
    return {
        name: mean_where(jnp.exp(evidence.log_likelihood(probe, evidence.labels)), evidence.present[name])
        for name, probe in evidence.probes.items()
    }


def _noise(updates: Any, factors: dict[str, Array], key: Array) -> Any:
    """Returns noise of each leaf's own standard deviation for the encoders whose factor is below 1, else 0."""
    numbers = iter(range(len(jax.tree.leaves(updates))))

    def draw(path: str, update: Array) -> Array:
        number, name = next(numbers), encoder_of(path, factors)
        if name is None:
            return jnp.zeros_like(update)
        noise = jax.random.normal(jax.random.fold_in(key, number), update.shape) * jnp.std(update)
        return jnp.where(factors[name] < 1, noise, 0.0)

    return map_with_path(draw, updates)

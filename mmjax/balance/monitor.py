"""Monitor: what each modality contributes while the model trains."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.balance.modulator import Modulator, Step, encoder_of, evidence_of, mean_likelihoods
from mmjax.core.arrays import mean_where
from mmjax.core.errors import at_least
from mmjax.core.subsets import keep_only
from mmjax.core.trees import flatten
from mmjax.core.types import Array
from mmjax.tasks.task import TaskLoss


@dataclasses.dataclass(frozen=True)
class Monitor(Modulator):
    """Logs of each modality m, and changes nothing:

    `monitor/probe/m`: the mean log-likelihood of its probe (where there are probes); `monitor/grad_norm/m`: of its
    encoder's parameters; `monitor/utilisation/m`: how much the answer moves when m is removed from the examples that
    have it: the total variation distance of class probabilities, in [0, 1], or the absolute difference of values. That
    takes a forward pass for each modality and one for all, without noise, so it is taken every few steps and logged
    between as it last was.

    Attributes:
      every: steps between measurements of utilisation.
    """

    every: int = 10

    def __post_init__(self):
        at_least(1, "Monitor", every=self.every)

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Returns the utilisation as it was last measured."""
        return {name: jnp.zeros(()) for name in sorted(evidence_of(loss).present)}

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict[str, Array]]:
        """Returns updates as they are, and the metrics."""
        measure = step.number % self.every == 0
        state = jax.lax.cond(measure, lambda: self._utilisation(step), lambda: state)
        metrics = {f"monitor/utilisation/{name}": value for name, value in state.items()}
        leaves = flatten(step.grads)
        for name in state:
            own = [leaf for path, leaf in leaves.items() if encoder_of(path, state) == name]
            metrics[f"monitor/grad_norm/{name}"] = optax.global_norm(own) if own else jnp.zeros(())
        probes = mean_likelihoods(step.evidence, step.evidence.probes)
        return updates, state, metrics | {f"monitor/probe/{name}": value for name, value in probes.items()}

    def _utilisation(self, step: Step) -> dict[str, jax.Array]:
        whole = step.run(step.params, step.batch).evidence

        def moved(name: str) -> jax.Array:
            without = keep_only(step.batch, [other for other in whole.present if other != name])
            answer = step.run(step.params, without).evidence.prediction
            return mean_where(distance(whole.prediction, answer, whole.labels), whole.present[name])

        return {name: moved(name) for name in sorted(whole.present)}


def distance(a: Array, b: Array, labels: Array) -> jax.Array:
    """Returns how far two answers [B, K] are apart, [B] float32; labels say whether they are classes or values."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return 0.5 * jnp.sum(jnp.abs(jax.nn.softmax(a) - jax.nn.softmax(b)), axis=-1)
    return jnp.sum(jnp.abs(a - b), axis=-1)

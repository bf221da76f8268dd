"""The interface of every task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.core.types import Array, Batch

Apply = Callable[..., Any]
"""apply(params, streams, rng) -> Outputs."""


@flax.struct.dataclass
class TaskLoss:
    """What a task gives the step.

    Attributes:
      values: [B] float32 loss of each example.
      mask: [B] bool, the examples that count.
      metrics: name -> [] float32 worth logging.
    """

    values: Array
    mask: Array
    metrics: dict[str, Array] = flax.struct.field(default_factory=dict)

    def mean(self) -> jax.Array:
        """Returns the float32 mean of values over mask; 0 where nothing counts."""
        weights = self.mask.astype(jnp.float32)
        values = jnp.where(self.mask, self.values.astype(jnp.float32), 0.0)
        return jnp.sum(values) / jnp.maximum(jnp.sum(weights), 1.0)


class Task(Protocol):
    """A pure loss in two stages; what crosses between them is what gradient caching keeps of a micro-batch.

    `embed` sees examples one by one (any micro-batch of them); `loss` sees the whole batch.
    """

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns (by_example, shared): trees of [B, ...] arrays and of arrays that do not depend on the batch."""

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the loss of the whole batch."""

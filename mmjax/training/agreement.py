"""What the processes of a job tell one another in passing: whether to stop, and how long each waits for its input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

EVERY = 5
"""Steps from one message to the next."""

LATER = 3
"""Steps after which an answer is read: the devices have these before them while the host looks at it."""


class Agreement:
    """The largest of what all processes say, some steps after they said it; nobody waits for it.

    A message is a maximum over all devices of two numbers each, enqueued behind the step that was just started. Read at
    once, it would hold the host until the devices have nothing left to do; read LATER steps on, it is done, and all
    processes read the same after the same step.

    Args:
      mesh: of all devices of the job.
    """

    def __init__(self, mesh: Mesh):
        self._rows = NamedSharding(mesh, P(mesh.axis_names))
        self._largest = jax.jit(lambda said: jnp.max(said, axis=0), out_shardings=NamedSharding(mesh, P()))
        self._sent: jax.Array | None = None
        self.metrics: dict[str, float] = {}

    def stop(self, step: int, asked: bool, input_wait: float) -> bool:
        """Says whether to stop after this step, with the same answer in every process.

        Args:
          step: was just started; every process calls this after each step.
          asked: this process was asked to stop.
          input_wait: share of this process's time, 0 to 1. The largest of all becomes `metrics`.

        Returns:
          asked of a job of one process; else whether any was asked at the last message, LATER steps ago.
        """
        if jax.process_count() == 1:
            return asked
        if step % EVERY == 0:
            self._sent = self._largest(self._said(float(asked), input_wait))
        if step % EVERY != LATER or self._sent is None:
            return False
        stop, wait = np.asarray(self._sent.addressable_data(0))  # [2]
        self._sent = None
        self.metrics = {"input_wait_share_max": float(wait)}
        return bool(stop)

    def _said(self, *numbers: float) -> jax.Array:
        """Returns [devices, 2] float32, of which this process fills the rows of its own devices."""
        row = np.array([numbers], np.float32)
        shape = (self._rows.mesh.size, len(numbers))
        return jax.make_array_from_callback(shape, self._rows, lambda _: row)

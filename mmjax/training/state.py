"""TrainState: everything that a restart needs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from mmjax.core.types import Array


@flax.struct.dataclass
class TrainState:
    """The whole state of training; the batch and the noise of a step follow from `step` and the config.

    Attributes:
      step: [] int32, steps taken, skipped ones included.
      params: nested dict of float32 arrays.
      opt_state: optax state.
      ema: moving average of params (None, or frozen leaves None).
      skipped: [] int32, updates skipped since the start because loss or gradient was not finite.
      skipped_in_row: [] int32, those since the last good update.
      balance: name -> state of the experiment's modulators.
    """

    step: Array
    params: Any
    opt_state: Any
    ema: Any
    skipped: Array
    skipped_in_row: Array
    balance: dict[str, Any] = flax.struct.field(default_factory=dict)

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate: the moving average where there is one, else params."""
        if self.ema is None:
            return self.params
        return jax.tree.map(lambda p, e: p if e is None else e, self.params, self.ema)


def create(
    params: Any,
    optimizer: optax.GradientTransformation,
    trainable: Any | None,
    balance: Callable[[], dict[str, Any]] = dict,
) -> TrainState:
    """Returns the state at step 0.

    Args:
      params: to begin with.
      optimizer: over params.
      trainable: a tree of bool that says which leaves have a moving average; None: there is none.
      balance: makes the state of each modulator.
    """
    # A separate buffer, since the step donates its state.
    ema = None if trainable is None else jax.tree.map(lambda t, p: jnp.copy(p) if t else None, trainable, params)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), ema, zero, zero, balance())


def update_ema(ema: Any, params: Any, decay: float) -> Any:
    """Returns decay * ema + (1 - decay) * params, leaf by leaf; None stays None."""
    if ema is None:
        return None
    return jax.tree.map(
        lambda e, p: None if e is None else decay * e + (1 - decay) * p, ema, params, is_leaf=lambda e: e is None
    )

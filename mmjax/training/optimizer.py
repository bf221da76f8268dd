"""The optimizer from optax: one chain of clipping, preconditioner, decay, learning rate and bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.core.errors import UserError, one_of
from mmjax.core.trees import map_with_path, matches_any, path_mask
from mmjax.training.schedule import Schedule

PRECONDITIONERS = ("adamw", "lion", "adafactor", "sgd")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How gradients become updates.

    Attributes:
      name: 'adamw', 'lion', 'adafactor' or 'sgd'.
      learning_rate: peak.
      schedule: its course.
      b1, b2, epsilon: of the moments; Adafactor's second moment has its own decay, 1 - step^-0.8.
      weight_decay: decoupled, times the learning rate.
      decay: patterns of parameter paths that decay; the default is matrices and embeddings, so biases, norms,
        logit_scale and logit_bias do not.
      clip_norm: gradients are scaled down to this global norm, or None.
      frozen: patterns of parameter paths that keep their values and cost no optimizer memory.
      bounds: parameter path pattern -> (low, high), kept after every update (CLIP: logit_scale in 0 .. ln 100).
      ema: decay of the moving average of parameters, or None.

    Raises:
      UserError: an unknown name, or an ema that is no share.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019; Chen et al., Symbolic Discovery of
      Optimization Algorithms (Lion), 2023; Shazeer & Stern, Adafactor, 2018.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    decay: Sequence[str] = (r".*/(kernel|embedding)",)
    clip_norm: float | None = 1.0
    frozen: Sequence[str] = ()
    bounds: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    ema: float | None = None

    def __post_init__(self):
        one_of(self.name, PRECONDITIONERS, "optimizer.name")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"optimizer.ema={self.ema} must be at least 0 and below 1, or None.")

    def build(self, params: Any, learning_rate: Callable[[Any], jax.Array]) -> optax.GradientTransformation:
        """Returns the transformation for params (arrays or their shapes).

        Raises:
          UserError: a pattern that matches no parameter.
        """
        decay = path_mask(params, self.decay, "optimizer.decay") if self.weight_decay else None
        path_mask(params, tuple(self.bounds), "optimizer.bounds")
        chain = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        chain.append(self._preconditioner())
        if decay is not None:
            chain.append(optax.add_decayed_weights(self.weight_decay, decay))
        chain.append(optax.scale_by_learning_rate(learning_rate))
        if self.bounds:
            chain.append(keep_in_bounds(self.bounds))
        train = optax.chain(*chain)
        if not self.frozen:
            return train
        labels = jax.tree.map(lambda train: "train" if train else "frozen", self.trainable(params))
        return optax.partition({"train": train, "frozen": optax.set_to_zero()}, labels)

    def trainable(self, params: Any) -> Any:
        """Returns a tree of bool, False for frozen parameters."""
        return jax.tree.map(lambda frozen: not frozen, path_mask(params, self.frozen, "optimizer.frozen"))

    def _preconditioner(self) -> optax.GradientTransformation:
        if self.name == "adamw":
            return optax.scale_by_adam(self.b1, self.b2, self.epsilon)
        if self.name == "lion":
            return optax.scale_by_lion(self.b1, self.b2)
        if self.name == "sgd":
            return optax.trace(self.b1)
        momentum = optax.ema(self.b1, debias=False, accumulator_dtype=jnp.bfloat16)
        factored = optax.scale_by_factored_rms(decay_rate=0.8)
        return optax.chain(factored, optax.clip_by_block_rms(1.0), momentum)


def keep_in_bounds(bounds: Mapping[str, tuple[float, float]]) -> optax.GradientTransformation:
    """Trims updates so that parameters whose path matches a pattern stay within its (low, high)."""

    def trim(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
        for pattern, (low, high) in bounds.items():
            if matches_any(name, (pattern,)):
                update = jnp.clip(param + update, low, high) - param
        return update

    return optax.stateless(lambda updates, params: map_with_path(trim, updates, params))

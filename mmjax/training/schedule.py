"""Learning-rate schedules: linear warm-up, then cosine, rsqrt or constant, then a cooldown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, one_of

KINDS = ("cosine", "rsqrt", "constant")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate over training, as a fraction of its peak.

    Attributes:
      kind: 'cosine' to `final`, 'rsqrt' (1 / sqrt(step / timescale) after warm-up), or 'constant'.
      warmup: duration of the linear rise from 0.
      cooldown: duration of the linear fall to `final` at the end ('rsqrt' and 'constant').
      timescale: steps at which rsqrt begins to fall.
      final: fraction of the peak at the end.

    References:
      Loshchilov & Hutter, SGDR, 2017 (cosine); Zhai et al., Scaling Vision Transformers, 2022, section 3.5 (rsqrt
      with cooldown).
    """

    kind: str = "cosine"
    warmup: str | int = 0
    cooldown: str | int = 0
    timescale: float = 10_000.0
    final: float = 0.0

    def build(
        self, peak: float, total: int, to_steps: Callable[[str | int], int]
    ) -> Callable[[int | jax.Array], jax.Array]:
        """Returns step -> learning rate (float32) for `total` steps; to_steps turns a duration into steps.

        Raises:
          UserError: an unknown kind, or warm-up and cooldown that do not fit in total.
        """
        one_of(self.kind, KINDS, "schedule.kind")
        warmup, cooldown = to_steps(self.warmup), to_steps(self.cooldown)
        if warmup + cooldown > total:
            raise UserError(
                f"schedule: warm-up of {warmup} and cooldown of {cooldown} steps do not fit in {total} steps."
            )

        def learning_rate(step: int | jax.Array) -> jax.Array:
            step = jnp.asarray(step, jnp.float32)
            rise = jnp.minimum(1.0, step / max(warmup, 1)) if warmup else 1.0
            # Floats: a run of 40 billion examples may have more steps than an int32 holds.
            return peak * rise * self._after_warmup(step, float(warmup), float(cooldown), float(total))

        return learning_rate

    def _after_warmup(self, step: jax.Array, warmup: float, cooldown: float, total: float) -> jax.Array:
        if self.kind == "cosine":
            progress = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
            return self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        level = jnp.ones_like(step)
        if self.kind == "rsqrt":
            level = 1 / jnp.sqrt(jnp.maximum(1.0, (step - warmup + self.timescale) / self.timescale))
        if not cooldown:
            return level
        remaining = jnp.clip((total - step) / cooldown, 0.0, 1.0)
        return self.final + (level - self.final) * remaining

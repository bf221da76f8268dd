"""How accuracy falls as more and more of a modality is lost: parts of it, or all of it in some examples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, one_of
from mmjax.core.types import Array, Batch, Stream
from mmjax.evaluation.evaluator import Embed
from mmjax.evaluation.supervised import classification_metrics, judged, predictions

LOSSES = ("positions", "channels", "modality")


@dataclasses.dataclass(frozen=True)
class RobustnessEvaluator:
    """Accuracy with growing shares of one modality lost; what is lost is drawn from the record's group number.

    Attributes:
      modality: that loses.
      what: 'positions' (points of a cloud, frames, samples: their mask is cleared, one always stays), 'channels' (whole
        channels of float measurements become NaN, not measured; one always stays), or 'modality' (it is missing
        altogether from that share of the examples).
      shares: of what is lost.
      head: decoder of the model.
      target: in `Batch.targets`.
      seed: of the draw.

    Raises:
      UserError: an unknown loss, or a share outside of [0, 1].
    """

    modality: str
    what: str = "positions"
    shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.9)
    head: str = "label"
    target: str = "label"
    seed: int = 0

    def __post_init__(self):
        one_of(self.what, LOSSES, "RobustnessEvaluator.what")
        if not self.shares or min(self.shares) < 0 or max(self.shares) > 1:
            raise UserError(f"RobustnessEvaluator.shares={self.shares}: expected numbers from 0 to 1.")

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: Any) -> dict[str, float]:
        """Returns 'lost 25 %/accuracy' and the F1 scores of every share.

        Raises:
          UserError: the model has no such head, the batches no such modality or target, or no example has a target.
        """
        del extra
        variants = {f"lost {100 * share:g} %": functools.partial(self.damaged, share=share) for share in self.shares}
        found = predictions(embed, batches, self.head, variants)
        return judged(found, self.target, lambda classes: classes >= 0, classification_metrics)

    def damaged(self, batch: Batch, share: float) -> Batch:
        """Returns batch with that share of the modality lost from each example."""
        one_of(self.modality, batch.streams, "RobustnessEvaluator.modality")
        values = batch.streams[self.modality].values
        if self.what == "channels" and not jnp.issubdtype(values.dtype, jnp.floating):
            raise UserError(
                f"RobustnessEvaluator: channels are lost as NaN, which {self.modality!r} of {values.dtype} cannot hold."
            )
        stream = _LOSE[self.what](batch.streams[self.modality], batch.group, share, self.seed)
        return batch.replace(streams=batch.streams | {self.modality: stream})


def _order(group: Array, seed: int, size: int) -> jax.Array:
    """Returns [B, size] int32, a permutation for each example that depends on its group and the seed alone."""
    key = jax.random.key(seed)
    noise = jax.vmap(lambda g: jax.random.uniform(jax.random.fold_in(key, g), (size,)))(jnp.asarray(group))
    return jnp.argsort(jnp.argsort(noise, axis=1), axis=1)


@jax.jit
def _lose_positions(stream: Stream, group: Array, share: float, seed: int) -> Stream:
    order = jnp.where(stream.mask, _order(group, seed, stream.mask.shape[1]), stream.mask.shape[1])  # [B, T]
    rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)  # [B, T], those that are there first
    kept = jnp.maximum(jnp.round(stream.mask.sum(axis=1) * (1 - share)), 1)  # [B]
    return stream.replace(mask=stream.mask & (rank < kept[:, None]))


@jax.jit
def _lose_channels(stream: Stream, group: Array, share: float, seed: int) -> Stream:
    channels = stream.values.shape[-1]
    kept = jnp.maximum(jnp.round(channels * (1 - share)), 1)
    lost = _order(group, seed, channels) >= kept  # [B, C]
    lost = lost.reshape(len(lost), *(1,) * (stream.values.ndim - 2), channels)
    return stream.replace(values=jnp.where(lost, jnp.nan, stream.values))


@jax.jit
def _lose_modality(stream: Stream, group: Array, share: float, seed: int) -> Stream:
    key = jax.random.key(seed)
    draw = jax.vmap(lambda g: jax.random.uniform(jax.random.fold_in(key, g)))(jnp.asarray(group))  # [B]
    return stream.replace(mask=stream.mask & (draw >= share)[:, None])


_LOSE = {"positions": _lose_positions, "channels": _lose_channels, "modality": _lose_modality}

"""Modality dropout: whole modalities of an example are hidden in training, never all of them."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, one_of
from mmjax.core.types import Stream


def drop_modalities(streams: Mapping[str, Stream], rates: Mapping[str, float], rng: jax.Array) -> dict[str, Stream]:
    """Clears the masks of modalities, each with its own probability; an example that has any keeps one at least.

    Args:
      streams: modality -> Stream of B examples.
      rates: modality -> probability; one that is not named stays.
      rng: [B] keys, one an example.

    Returns:
      streams with the same shapes. Where the draw would drop all that an example has, the modality nearest to being
      kept stays (with equal rates: any of them, equally often).

    Raises:
      UserError: a rate that is no probability, or of a modality that the streams lack.

    References:
      Neverova et al., ModDrop: adaptive multi-modal gesture recognition, 2016, section 3.3.
    """
    for name, rate in rates.items():
        one_of(name, streams, "modality_dropout: the modality")
        if not 0 <= rate <= 1:
            raise UserError(f"modality_dropout: the rate {rate} of {name!r} is no probability.")
    present = jnp.stack([stream.present for stream in streams.values()], axis=1)  # [B, M]
    thresholds = jnp.asarray([rates.get(name, 0.0) for name in streams])  # [M]
    noise = jax.vmap(lambda key: jax.random.uniform(key, thresholds.shape))(rng)  # [B, M]
    margin = jnp.where(present, noise - thresholds, -jnp.inf)  # [B, M]
    keep = (margin >= 0) | jax.nn.one_hot(margin.argmax(axis=1), len(thresholds), dtype=bool)  # [B, M]
    return {
        name: stream.replace(mask=stream.mask & keep[:, place, None])
        for place, (name, stream) in enumerate(streams.items())
    }

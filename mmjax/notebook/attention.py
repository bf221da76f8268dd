"""Attention maps: from the weights that layers.attention stores to one picture-shaped map a layer and head."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.trees import flatten


def by_layer(intermediates: Mapping[str, Any]) -> list[np.ndarray]:
    """Returns the weights [B, H, N, M] of every attention layer of one encoder, from the first to the last.

    Args:
      intermediates: collection 'intermediates' of the encoder; scanned layers are stacked on axis 0.

    Returns:
      Self-attention in order of depth, then attention whose queries are not its keys (attention pooling).
    """
    found = {path: leaf for path, leaf in flatten(intermediates).items() if "attention" in path.split("/")[-2:]}
    layers = []
    for path in sorted(found, key=_natural):
        weights = np.asarray(found[path], np.float32)
        layers += list(weights) if weights.ndim == 5 else [weights]
    return sorted(layers, key=lambda weights: weights.shape[-2] != weights.shape[-1])


def _natural(path: str) -> list[Any]:
    """Sorts block_2 before block_10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path)]


def to_map(weights: np.ndarray) -> np.ndarray:
    """Returns how much each patch of a square picture is looked at: [H, h, w], summing to at most 1 over h and w.

    Args:
      weights: [H, N, M] of one example. With a class token (M is a square and 1 more) the map is the row of that token,
        without its look at itself; else it is the mean over the N queries, which is what mean pooling passes on.

    Raises:
      UserError: the tokens are no square grid.
    """
    tokens = weights.shape[-1]
    side = math.isqrt(tokens)
    extra = tokens - side * side
    if extra > 1:
        raise UserError(
            f"attention: {tokens} tokens are no square grid of patches, with or without a class token, so they have no "
            "map; see attention_weights for the weights themselves."
        )
    looked = weights[:, 0, 1:] if extra and weights.shape[-2] == tokens else weights.mean(axis=-2)[:, extra:]  # [H, hw]
    return looked.reshape(len(weights), side, side)

"""From the tokens of an encoder back to the input: which part of it each token was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from mmjax.core.types import Stream
from mmjax.evaluation.sites import at_tokens, find_sites, only, run
from mmjax.layers.hooks import INTERMEDIATES


def grid_of(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Returns (h, w) with h w = tokens in the proportions of a picture, without or with a class token; else None."""
    for count in (tokens, tokens - 1):
        h = round((count * height / width) ** 0.5)
        if h > 0 and count % h == 0 and h * width == count // h * height:
            return h, count // h
    return None


def token_changes(model: nn.Module, params: Any, streams: Mapping[str, Stream], name: str) -> jax.Array:
    """Returns [B, N] float32: how far each token of a modality, as `relevancy` has them, moves from that of row 0.

    Row 0 is an example, the others are the same one with a part left out: what moves was made of that part. A class
    token does not move.
    """
    sites = find_sites(model, params, streams)
    path = sites.tower(name) or sites.ends(name)[-1]

    def store(module: nn.Module, x: jax.Array) -> jax.Array:
        if module.path == path[:-1]:
            module.sow(INTERMEDIATES, "values", x)
        return x

    _, stored = run(model, {"params": params}, streams, at_tokens(store))
    where = (*path[:-1], "values")
    x = only(where, flatten_dict(dict(stored))[where]).astype(jnp.float32)  # [B, ..., N, D]
    x = x.reshape(len(next(iter(streams.values())).mask), -1, x.shape[-1])  # [B, N, D]
    return jnp.linalg.norm(x - x[:1], axis=-1)


def spread(relevancy: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Returns [P] float64: the relevancy [N] of tokens, given to the P parts that each was made of, by changes [P, N].

    What no part moves (a class token) is given to none.
    """
    changes = np.asarray(changes, np.float64)
    total = changes.sum(axis=0)  # [N]
    return changes @ (np.asarray(relevancy, np.float64) / np.where(total > 0, total, 1.0))

"""Rules of relevancy: what each layer passes on, in place of its derivative, while its value stays as it is.

An attention layer passes on what its keys hold, by the weights in the collection 'relevancy'; a residual sum adds;
norms and projections pass on what they are given; a pool passes on its tokens by their shares; an MLP beside a
residual sum passes on nothing, any other is a projection. A token holds one number, the mean over its features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.evaluation.sites import ATTENTION, TOKENS, at_tokens
from mmjax.layers.attention import Attention
from mmjax.layers.conformer import ConvolutionModule, FeedForward
from mmjax.layers.cross_attention import CrossBlock
from mmjax.layers.hooks import PERTURBATIONS, RELEVANCY
from mmjax.layers.mlp import Mlp
from mmjax.layers.norm import LayerNorm
from mmjax.layers.pooling import Pool
from mmjax.layers.space_time import DividedBlock
from mmjax.layers.transformer import Block

BRANCHES = (FeedForward, ConvolutionModule)
RESIDUAL = (Block, CrossBlock, DividedBlock, Pool)
"""Whose MLP is added to what it is given."""

NORMS = (LayerNorm, nn.LayerNorm)

SHARES = "shares"
"""Of the tokens of a pool, or of those that an encoder gives."""


def relevant(module: nn.Module, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """The rules of relevancy; a module that has none is differentiated as it is."""
    if isinstance(module, BRANCHES) or (isinstance(module, Mlp) and isinstance(module.parent, RESIDUAL)):
        return jax.lax.stop_gradient(call(*args, **kwargs))
    if isinstance(module, NORMS):
        return graft(call(*args, **kwargs), args[0])
    if isinstance(module, (Mlp, nn.Dense)):
        return graft(call(*args, **kwargs), args[0].mean(axis=-1, keepdims=True))
    if isinstance(module, Attention):
        return graft(call(*args, **kwargs), _attended(module, *args, **kwargs))
    found = at_tokens(seed)(module, call, args, kwargs)
    if isinstance(module, Pool) and module.kind != "attention" and module.has_variable(RELEVANCY, SHARES):
        share = module.get_variable(RELEVANCY, SHARES)  # [B, N]
        return graft(found, jnp.einsum("bn,bnd->bd", share, seed(module, args[0]).astype(jnp.float32)))
    return found


def graft(value: Any, like: jax.Array) -> Any:
    """Returns value with the derivative of `like`, which has its shape or broadcasts to it; None stays None."""
    if value is None:
        return None
    return jax.lax.stop_gradient(value) + (like - jax.lax.stop_gradient(like)).astype(value.dtype)


def _attended(module: nn.Module, x: jax.Array, context: jax.Array | None = None, mask: Any = None) -> jax.Array:
    """Returns [B, N, 1]: what the keys hold, weighted by the relevancy of the weights [B, N, M]."""
    held = (x if context is None else context).astype(jnp.float32).mean(axis=-1)  # [B, M]
    return jnp.einsum("bnm,bm->bn", module.get_variable(RELEVANCY, ATTENTION), held)[..., None]


def seed(module: nn.Module, x: jax.Array) -> jax.Array:
    """Returns x [..., N, D] plus the number that each of its tokens is given to hold, which the derivative is for."""
    return x + module.get_variable(RELEVANCY, TOKENS)[..., None].astype(x.dtype)


def gate(module: nn.Module, x: jax.Array) -> jax.Array:
    """Times 1: the derivative for the zero in it is gradient x input."""
    return x * (1 + module.get_variable(PERTURBATIONS, TOKENS)[..., None]).astype(x.dtype)

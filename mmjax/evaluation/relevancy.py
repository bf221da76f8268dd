"""What a prediction looked at: gradient-weighted relevancy and attention rollout, through any wiring of the layers.

Relevancy goes from the tokens of every encoder to the joint vector by R += A R at each attention layer, along with the
residual sums. That is a derivative under other rules (`evaluation.rules`), so the model itself is differentiated with
them, and self-, cross- and bottleneck attention, scanned or not, need no code of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.core.precision import in_float32
from mmjax.core.types import Array, Outputs, Stream, Tokens
from mmjax.evaluation.rules import SHARES, gate, relevant
from mmjax.evaluation.sites import (
    Path,
    Sites,
    at_tokens,
    collection,
    find_sites,
    run,
    stored_attention,
)
from mmjax.layers.hooks import PERTURBATIONS, RELEVANCY
from mmjax.layers.pooling import summary
from mmjax.model import ENCODERS

Weights = Mapping[Path, Array]


@flax.struct.dataclass
class Relevancy:
    """How much each token of each modality speaks for a score.

    Attributes:
      tokens: modality -> [B, N] float32 >= 0, of the tokens that go into the encoder's first layer (a class token
        among them), or that it gives, where it has no attention; 0 for a missing modality.
      attended: modality -> [B] bool; False where no attention led to the score, so that `tokens` are gradient x input
        (its positive part) of the tokens that the encoder gives.
      score: [B] float32.
    """

    tokens: dict[str, Array]
    attended: dict[str, Array]
    score: Array


def relevancy(
    model: nn.Module, params: Any, streams: Mapping[str, Stream], score: Callable[[Outputs], jax.Array]
) -> Relevancy:
    """Returns the gradient-weighted relevancy of every token.

    A = mean over heads of the positive part of (gradient of the score for the attention weights) x (the weights). Where
    tokens are pooled without attention, they count by the positive part of gradient x input, in shares of 1. The
    published rule for two encoders (equation 10) scales the two self-attention maps before it joins them; here R += A R
    holds everywhere (equations 6, 7 and 11).

    Args:
      model: a MultimodalModel, or any whose encoders are named as its are.
      params: its parameters.
      streams: modality -> Stream of B examples.
      score: Outputs -> [B], each of its own example alone.

    Raises:
      UserError: see sites.find_sites.

    References:
      Chefer et al., Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers,
      2021, equations 5 to 7 and 11.
    """
    sites = find_sites(model, params, streams)
    zeros = {path: jnp.zeros(shape.shape, jnp.float32) for path, shape in (sites.attention | sites.tokens).items()}

    def scored(perturbations: Weights) -> tuple[jax.Array, Any]:
        variables = {"params": params, PERTURBATIONS: collection(perturbations)}
        outputs, stored = run(model, variables, streams, at_tokens(gate))
        values = score(outputs).astype(jnp.float32)  # [B]
        return values.sum(), (values, stored_attention(stored))

    gradients, (values, attention) = jax.grad(scored, has_aux=True)(zeros)
    weights = {path: _positive(gradients[path] * attention[path]).mean(axis=-3) for path in attention}  # [B, N, M]
    for path, kind in sites.kinds.items():
        if kind != "tower":
            weights[(*path[:-1], SHARES)] = _shares(gradients[path])  # [B, N]
    joint = _any([gradients[path] for path in sites.joint_attention()], len(values))  # [B]
    found = _propagated(model, params, streams, sites, weights, joint)
    return _chosen(sites, found, gradients, joint, values)


def rollout(model: nn.Module, params: Any, streams: Mapping[str, Stream]) -> dict[str, jax.Array]:
    """Returns modality -> [B, N] float32: how much of the joint vector comes from each token; all sum to 1.

    Each layer passes on half of the token itself and half of what it attends to, heads on average, so that a tower's
    tokens have together what its fusion takes of it, however deep it is. Without attention in the fusion, the vectors
    of the modalities count alike.

    Args: see `relevancy`.

    References:
      Abnar & Zuidema, Quantifying Attention Flow in Transformers, 2020, section 3, equation 1.
    """
    sites = find_sites(model, params, streams)
    outputs, stored = run(model, {"params": params}, streams, lambda _, call, args, kwargs: call(*args, **kwargs))
    weights = {path: leaf.mean(axis=-3) for path, leaf in stored_attention(stored).items()}  # [B, N, M]
    size = len(next(iter(outputs.tokens.values())).mask)
    joint = jnp.full((size,), bool(sites.joint_attention()))
    found = _propagated(model, params, streams, sites, weights, joint)
    tokens = {}
    for name in streams:
        values = _at_start(sites, found, name, size)  # [B, N]
        taken = _at_ends(sites, found, name, size).sum(axis=1, keepdims=True)  # [B, 1]
        tokens[name] = _in_shares(values) * taken
    total = sum(values.sum(axis=1, keepdims=True) for values in tokens.values())  # [B, 1]
    return {name: values / jnp.where(total > 0, total, 1.0) for name, values in tokens.items()}


def rollout_matrix(layers: Sequence[Array]) -> jax.Array:
    """Returns [B, N, N] float32, rows summing to 1: what each token is made of, of self-attention layers [B, H, N, N].

    References:
      Abnar & Zuidema, Quantifying Attention Flow in Transformers, 2020, section 3, equation 1.
    """
    eye = jnp.eye(layers[0].shape[-1], dtype=jnp.float32)
    steps = [(jnp.mean(jnp.asarray(layer, jnp.float32), axis=1) + eye) / 2 for layer in layers]  # [B, N, N]
    return functools.reduce(lambda product, step: step @ product, steps)


def _propagated(
    model: nn.Module, params: Any, streams: Mapping[str, Stream], sites: Sites, weights: Weights, joint: jax.Array
) -> dict[Path, jax.Array]:
    """Returns path -> [B, N]: the derivative, under the rules, of the vector that is read for a token at each site."""

    model = in_float32(model)  # a derivative of 12 layers in bfloat16 would be the rounding's as much as the model's

    def read(seeds: Weights) -> jax.Array:
        variables = {"params": params, RELEVANCY: collection({**weights, **seeds})}
        outputs, _ = run(model, variables, streams, relevant)
        towers = sum(
            _read(tokens, weights.get((f"{ENCODERS}{name}", SHARES))) for name, tokens in outputs.tokens.items()
        )
        if outputs.fused is None or outputs.fused.pooled is None:
            return towers.sum()
        return jnp.where(joint, outputs.fused.pooled.astype(jnp.float32).mean(axis=-1), towers).sum()

    return jax.grad(read)({path: jnp.zeros(shape.shape, jnp.float32) for path, shape in sites.tokens.items()})


def _read(tokens: Tokens, share: jax.Array | None) -> jax.Array:
    """Returns [B]: of the vector of a modality and of its tokens by their share [B, N]; without shares its summary."""
    if share is None:
        return summary(tokens).mean(axis=-1)
    there = jnp.where(tokens.present[:, None], share, 0.0)  # [B, N]
    found = jnp.einsum("bn,bnd->bd", there, tokens.x.astype(jnp.float32)).mean(axis=-1)
    return found if tokens.pooled is None else found + summary(tokens).mean(axis=-1)


def _positive(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0.0)


def _shares(x: jax.Array) -> jax.Array:
    """Returns the positive part of x [B, N] in shares of 1; of its magnitudes, where nothing is positive."""
    part = jnp.where((x > 0).any(axis=-1, keepdims=True), _positive(x), jnp.abs(x))
    return _in_shares(part)


def _in_shares(x: jax.Array) -> jax.Array:
    """Returns x [B, N] >= 0 divided by its sum; 0 where that is 0."""
    total = x.sum(axis=-1, keepdims=True)
    return x / jnp.where(total > 0, total, 1.0)


def _any(gradients: Sequence[jax.Array], size: int) -> jax.Array:
    """Returns [B] bool: whether any of the gradients [(depth,) k B, H, N, M] of an example is not 0."""
    found = jnp.zeros((size,), bool)
    for gradient in gradients:
        rows = jnp.moveaxis(gradient, -4, 0)  # [k B, ...]
        found = found | (rows.reshape(size, -1) != 0).any(axis=1)
    return found


def _at_start(sites: Sites, found: Weights, name: str, size: int) -> jax.Array:
    """Returns [B, N] of a modality: at its tower, else of the tokens that its encoder gives."""
    tower = sites.tower(name)
    return _at_ends(sites, found, name, size) if tower is None else found[tower].reshape(size, -1)


def _at_ends(sites: Sites, found: Weights, name: str, size: int) -> jax.Array:
    """Returns [B, N] of a modality, of the tokens that its encoder gives."""
    return sum(found[path] for path in sites.ends(name)).reshape(size, -1)


def _chosen(sites: Sites, found: Weights, gradients: Weights, joint: jax.Array, score: jax.Array) -> Relevancy:
    """Returns relevancy where attention led to the score, else gradient x input."""
    tokens, attended, size = {}, {}, len(score)
    names = dict.fromkeys(path[0].removeprefix(ENCODERS) for path, kind in sites.kinds.items() if kind == "encoder")
    for name in names:
        values = _at_start(sites, found, name, size)  # [B, N]
        inputs = _positive(_at_ends(sites, gradients, name, size))  # [B, N']
        led = (values > 0).any(axis=1) & (joint if sites.tower(name) is None else True)  # [B]
        if inputs.shape != values.shape:
            inputs, led = values, jnp.ones_like(led)
        tokens[name], attended[name] = jnp.where(led[:, None], values, inputs), led
    return Relevancy(tokens, attended, score)

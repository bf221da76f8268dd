"""Runs a loss of the library on an `example` and returns value and gradients under the reference's names."""

from __future__ import annotations

import functools

import jax

from mmjax.losses import contrastive, ring

SCALE, BIAS = 14.0, -6.0
FORMS = {
    "softmax": (contrastive.softmax_contrastive, ring.ring_softmax_contrastive),
    "sigmoid": (contrastive.sigmoid_contrastive, ring.ring_sigmoid_contrastive),
}


def scalars(kind: str) -> dict[str, float]:
    """Returns the learned scalars at which the tests look."""
    return {"scale": SCALE} if kind == "softmax" else {"scale": SCALE, "bias": BIAS}


def objective(kind: str, variables: dict, data: dict, **options):
    """Returns sum(weight * loss) and the loss; options (chunk_size, axes) choose the ring form."""
    loss_fn = FORMS[kind][bool(options)]
    named = {f"logit_{name}": variables[name] for name in scalars(kind)}
    arguments = {name: data[name] for name in ("group", "mask") if name in data}
    loss = loss_fn(variables["a"], variables["b"], **named, **arguments, **options)
    return (data["weight"] * loss).sum(), loss


@functools.partial(jax.jit, static_argnames=("kind", "options"))
def _value_and_grad(kind: str, variables: dict, data: dict, options: tuple):
    fn = functools.partial(objective, kind, **dict(options))
    return jax.value_and_grad(fn, has_aux=True)(variables, data)


def evaluate(kind: str, data: dict, **options) -> dict:
    """Returns loss [N] and the gradients of sum(weight * loss): a, b, scale (and bias)."""
    variables = {"a": data["a"], "b": data["b"], **scalars(kind)}
    (_, loss), gradients = _value_and_grad(kind, variables, data, tuple(sorted(options.items())))
    return {"loss": loss, **gradients}

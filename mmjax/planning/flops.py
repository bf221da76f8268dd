"""Floating-point operations of the matrix products in a traced function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax.extend
from jax.interpreters import partial_eval


def needed(jaxpr: jax.extend.core.Jaxpr) -> jax.extend.core.Jaxpr:
    """Returns jaxpr without what none of its outputs needs, which the compiler leaves out too."""
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def flops_of(jaxpr: jax.extend.core.Jaxpr) -> int:
    """Returns the operations (two a multiply-add) of all matrix products and convolutions of a jaxpr.

    A scan counts its body as often as it runs, a shard_map once for each device; a `while` of unknown length counts
    once, and of a conditional's branches the dearest counts.
    """
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    inner = [flops_of(jaxpr) for jaxpr in _jaxprs(equation.params)]
    if name == "cond":
        return max(inner, default=0)
    if name == "scan":
        return equation.params["length"] * sum(inner)
    if name == "shard_map":
        return equation.params["mesh"].size * sum(inner)
    return sum(inner)


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs among the parameters of an equation, each opened."""
    for name, value in params.items():
        if name in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd"):  # not run here: the derivative, should one be asked for
            continue
        for one in value if isinstance(value, list | tuple) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one


def _dot(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    features = equation.params["dimension_numbers"].rhs_spec[0]  # the axis of output features
    per_output = math.prod(kernel) // kernel[features]
    return 2 * math.prod(equation.outvars[0].aval.shape) * per_output

"""Compute precision: bfloat16 matmuls where the hardware has them, float32 everywhere else in the numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of

DTYPES = {"bfloat16": jnp.bfloat16, "float32": jnp.float32}


def compute_dtype(precision: str, backend: str | None = None) -> jnp.dtype:
    """Returns the matmul dtype for 'auto', 'bfloat16' or 'float32'.

    'auto' is bfloat16 on TPU and GPU and float32 on CPU, where bfloat16 is slower.

    Raises:
      UserError: an unknown precision.
    """
    one_of(precision, ("auto", *DTYPES), "precision")
    if precision == "auto":
        precision = "float32" if (backend or jax.default_backend()) == "cpu" else "bfloat16"
    return jnp.dtype(DTYPES[precision])


def in_float32(value: Any) -> Any:
    """Returns a module, or a mapping or sequence of them, that computes in float32 wherever it has a `dtype`."""
    if isinstance(value, nn.Module):
        names = [
            field.name for field in dataclasses.fields(value) if field.init and field.name not in ("parent", "name")
        ]
        inner = {name: in_float32(getattr(value, name)) for name in names}
        return value.clone(**inner | ({"dtype": jnp.float32} if "dtype" in inner else {}))
    if isinstance(value, Mapping):
        return {name: in_float32(inner) for name, inner in value.items()}
    return type(value)(map(in_float32, value)) if isinstance(value, (list, tuple)) else value

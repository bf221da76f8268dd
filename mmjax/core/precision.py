"""Compute precision: bfloat16 matmuls where the hardware has them, float32 everywhere else in the numbers."""

from __future__ import annotations

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
